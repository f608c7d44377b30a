/**
 * Request bodies: JSON of bounded size, read only when it says that it is JSON. A plain-text body is what a web page may
 * send across sites without permission, so the content type is a defence too.
 *
 * Hono's `bodyLimit` was tried and left: it rebuilds a request without a declared length, which costs a second copy.
 *
 * @module
 */

import type { Context } from "hono";
import { parseJson, ProtocolError } from "../protocol/mod.ts";
import { ApiError } from "./errors.ts";
import type { ApiEnv } from "./route.ts";
import { LATE, within } from "./timing.ts";

/** Largest request body: 128 bytes for each token of a 32k context, where a token is rarely above 8. */
export const MAX_BODY_BYTES = 4 * 1024 * 1024;

/** Longest time in which a body has to come, in milliseconds: a megabit in a second brings the largest in about 30. */
export const BODY_TIMEOUT_MS = 60_000;

/** The JSON value of a request's body of at most `maxBytes`. */
export async function readJson(c: Context<ApiEnv>, maxBytes: number): Promise<unknown> {
  requireJson(c.req.header("content-type"));
  return parseJson(await textOf(c, maxBytes));
}

async function textOf(c: Context<ApiEnv>, maxBytes: number): Promise<string> {
  if (Number(c.req.header("content-length") ?? 0) > maxBytes) throw tooLarge(maxBytes);
  return await inTime(c.req.raw.body, maxBytes, c.get("bodyTimeoutMs"));
}

/** A body that trickles keeps a connection and what was read of it, so all of it has to come within `timeoutMs`. */
async function inTime(body: ReadableStream<Uint8Array> | null, maxBytes: number, timeoutMs: number): Promise<string> {
  if (body === null) return "";
  const reader = body.getReader();
  try {
    const text = await within(readText(reader, maxBytes), timeoutMs);
    if (text !== LATE) return text;
    throw tooSlow(timeoutMs);
  } catch (error) {
    // Not waited for: it may be the other side that never answers.
    reader.cancel().catch(() => {});
    throw error;
  }
}

/** The same where a request may also bring no body at all, nor a word on its type: that stands for an empty object. */
export async function readOptionalJson(c: Context<ApiEnv>, maxBytes: number): Promise<unknown> {
  if (c.req.header("content-type") !== undefined) return await readJson(c, maxBytes);
  // Whether there is a body, no header says for sure: HTTP/2 needs none.
  if (await textOf(c, maxBytes) !== "") requireJson(undefined);
  return {};
}

function requireJson(type: string | undefined): void {
  if (type !== undefined && /^application\/json\s*(;|$)/i.test(type)) return;
  throw new ApiError(415, {
    code: "unsupported_media_type",
    message: `content-type: expected application/json, got ${type ? JSON.stringify(type.slice(0, 80)) : "nothing"}`,
  });
}

/** Nothing obliges a body to have a declared length, so bytes are counted as they come. */
async function readText(reader: ReadableStreamDefaultReader<Uint8Array>, maxBytes: number): Promise<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let text = "";
  let bytes = 0;
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) {
      bytes += next.value.length;
      if (bytes > maxBytes) throw tooLarge(maxBytes);
      text += decoder.decode(next.value, { stream: true });
    }
    return text + decoder.decode();
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    throw new ProtocolError("invalid_json", "request: expected UTF-8, got bytes that are not");
  }
}

/** The rest of the body would come on the same connection, so it ends; Deno 2.9.6 leaves that to the client. */
function tooSlow(timeoutMs: number): ApiError {
  return new ApiError(408, {
    code: "request_timeout",
    message: `body: expected all of it within ${timeoutMs / 1000} seconds, got less`,
  }, { headers: { connection: "close" } });
}

function tooLarge(maxBytes: number): ApiError {
  return new ApiError(413, {
    code: "request_too_large",
    message: `body: expected at most ${maxBytes} bytes, got more`,
  });
}
