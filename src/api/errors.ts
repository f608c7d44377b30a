/**
 * The one table from failures to HTTP: every handler throws, and here alone a failure gets its status, code and
 * sentence. Details of our own mistakes go to the log and never to the client.
 *
 * @module
 */

import type { ContentfulStatusCode } from "hono/utils/http-status";
import { ChatTemplateError, type ChatTemplateErrorCode } from "../chat/message.ts";
import { EngineError, type EngineErrorCode } from "../engine/engine.ts";
import { ProtocolError, type WireError } from "../protocol/mod.ts";
import { StoreError, type StoreErrorCode } from "../sessions/entry.ts";
import { SessionError, type SessionErrorCode } from "../sessions/error.ts";

/** Seconds after which a refused client may try again. */
export const RETRY_AFTER_S = 1;

/** A failure as HTTP tells it. */
export class ApiError extends Error {
  override readonly name = "ApiError";
  /** HTTP status. */
  readonly status: ContentfulStatusCode;
  /** What a client's program sees. */
  readonly wire: WireError;
  /** Headers that belong to the failure, such as `allow`. */
  readonly headers: Record<string, string>;

  /** A failure with its status, its wire form and, when it wraps another, that as `cause`. */
  constructor(
    status: ContentfulStatusCode,
    wire: { message: string; type?: string; code: string; param?: string | null },
    options: ErrorOptions & { headers?: Record<string, string> } = {},
  ) {
    super(wire.message, options);
    const { message, type = "invalid_request_error", code, param = null } = wire;
    this.status = status;
    this.wire = { message, type, code, param };
    this.headers = options.headers ?? {};
  }
}

interface Row {
  status: ContentfulStatusCode;
  type: string;
  code: string;
  param?: string;
  headers?: Record<string, string>;
  /** Whether the sentence describes the server's insides; it is then replaced. */
  hidden?: boolean;
}

const INTERNAL: Row = { status: 500, type: "server_error", code: "internal_error", hidden: true };

const ENGINE_ROWS: Record<EngineErrorCode, Row> = {
  invalid_request: { status: 400, type: "invalid_request_error", code: "invalid_value" },
  unsupported: { status: 400, type: "invalid_request_error", code: "unsupported_value" },
  context_overflow: {
    status: 400,
    type: "invalid_request_error",
    code: "context_length_exceeded",
    param: "messages",
  },
  overloaded: {
    status: 429,
    type: "overloaded_error",
    code: "overloaded",
    headers: { "retry-after": String(RETRY_AFTER_S) },
  },
  closed: { status: 503, type: "server_error", code: "closed" },
  not_found: INTERNAL,
  io: INTERNAL,
  invalid_format: INTERNAL,
  internal: INTERNAL,
  insufficient_resources: INTERNAL,
};

const REFUSED_MESSAGES: Row = {
  status: 400,
  type: "invalid_request_error",
  code: "invalid_value",
  param: "messages",
};

/** Templates that are broken or missing are ours; what a template refuses, or cannot render in bounds, is the caller's. */
const TEMPLATE_ROWS: Record<ChatTemplateErrorCode, Row> = {
  invalid_message: REFUSED_MESSAGES,
  invalid_order: REFUSED_MESSAGES,
  unguardable: REFUSED_MESSAGES,
  refused: REFUSED_MESSAGES,
  limit: REFUSED_MESSAGES,
  no_template: INTERNAL,
  unknown_template: INTERNAL,
  invalid_template: INTERNAL,
  failed: INTERNAL,
};

/** What is kept for a caller, and what others of the same caller do with it. */
const SESSION_ROWS: Record<SessionErrorCode, Row> = {
  not_found: { status: 404, type: "invalid_request_error", code: "not_found" },
  conflict: { status: 409, type: "invalid_request_error", code: "conversation_conflict" },
  gone: { status: 410, type: "invalid_request_error", code: "resume_gone" },
  invalid: { status: 400, type: "invalid_request_error", code: "invalid_value" },
  too_large: { status: 413, type: "invalid_request_error", code: "too_large" },
  too_many: {
    status: 429,
    type: "overloaded_error",
    code: "too_many_responses",
    headers: { "retry-after": String(RETRY_AFTER_S) },
  },
};

/** Where it matters which field is refused: what OpenAI's clients look for. */
const FIELD_ROWS: Record<string, Partial<Row>> = {
  "not_found previous_response_id": { status: 400, code: "previous_response_not_found" },
  "conflict previous_response_id": { code: "response_in_progress" },
  "not_found response_id": { code: "response_not_found" },
};

const STORE_ROWS: Record<StoreErrorCode, Row> = {
  too_large: SESSION_ROWS.too_large,
  full: { status: 503, type: "server_error", code: "store_full" },
};

/** Any thrown value as the failure that a client may see. */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof ProtocolError) {
    const { message, code, param } = error;
    return new ApiError(400, { message, code, param }, { cause: error });
  }
  const row = rowOf(error);
  const message = row.hidden ? "the server failed; its log has the reason" : (error as Error).message;
  const { type, code } = row;
  const param = (error instanceof SessionError ? error.param : null) ?? row.param ?? null;
  return new ApiError(row.status, { message, type, code, param }, { cause: error, headers: row.headers });
}

function rowOf(error: unknown): Row {
  if (error instanceof EngineError) return ENGINE_ROWS[error.code];
  if (error instanceof ChatTemplateError) return TEMPLATE_ROWS[error.code];
  if (error instanceof SessionError) return sessionRow(error);
  if (error instanceof StoreError) return STORE_ROWS[error.code];
  return INTERNAL;
}

function sessionRow({ code, param }: SessionError): Row {
  return { ...SESSION_ROWS[code], ...FIELD_ROWS[`${code} ${param}`] };
}
