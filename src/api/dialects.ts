/**
 * In whose words a failure is told: each API's clients read only its own. One table, so that also what no handler saw
 * (a foreign host, a wrong method, an unknown path) is told in them.
 *
 * @module
 */

import {
  type ErrorEnvelope,
  errorEnvelope,
  type GenerateError,
  generateError,
  type MessagesError,
  messagesError,
  type OllamaError,
  type WireError,
} from "../protocol/mod.ts";

type OtherError = GenerateError | MessagesError | OllamaError;

interface Dialect {
  /** Paths of the API. */
  paths: RegExp;
  body: (status: number, wire: WireError, requestId: string) => OtherError;
}

const DIALECTS: readonly Dialect[] = [
  // FastChat's paths below `/api/v1/` are not Ollama's.
  { paths: /^\/api\/(?!v1\/)/, body: (_status, { message }) => ({ error: message }) },
  { paths: /^\/generate(_stream)?$/, body: (status, { message }) => generateError(message, status) },
  {
    paths: /^\/v1\/messages(\/|$)/,
    body: messagesError,
  },
];

/** The body of a failure under `path`; OpenAI's where no other API's is known. */
export function errorBody(
  path: string,
  status: number,
  wire: WireError,
  requestId: string,
): ErrorEnvelope | OtherError {
  return DIALECTS.find(({ paths }) => paths.test(path))?.body(status, wire, requestId) ?? errorEnvelope(wire);
}
