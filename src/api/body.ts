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

/** Largest request body: 128 bytes for each token of a 32k context, where a token is rarely above 8. */
export const MAX_BODY_BYTES = 4 * 1024 * 1024;

/** The JSON value of a request's body of at most `maxBytes`. */
export async function readJson({ req }: Context, maxBytes: number): Promise<unknown> {
  requireJson(req.header("content-type"));
  if (Number(req.header("content-length") ?? 0) > maxBytes) throw tooLarge(maxBytes);
  return parseJson(await readText(req.raw.body, maxBytes));
}

/** The same where a request may also bring no body at all, nor a word on its type: that stands for an empty object. */
export async function readOptionalJson(c: Context, maxBytes: number): Promise<unknown> {
  if (c.req.header("content-type") !== undefined) return await readJson(c, maxBytes);
  // Whether there is a body, no header says for sure: HTTP/2 needs none.
  if (await readText(c.req.raw.body, maxBytes) !== "") requireJson(undefined);
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
async function readText(body: ReadableStream<Uint8Array> | null, maxBytes: number): Promise<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let text = "";
  let bytes = 0;
  try {
    for await (const chunk of body ?? []) {
      bytes += chunk.length;
      if (bytes > maxBytes) throw tooLarge(maxBytes);
      text += decoder.decode(chunk, { stream: true });
    }
    return text + decoder.decode();
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    throw new ProtocolError("invalid_json", "request: expected UTF-8, got bytes that are not");
  }
}

function tooLarge(maxBytes: number): ApiError {
  return new ApiError(413, {
    code: "request_too_large",
    message: `body: expected at most ${maxBytes} bytes, got more`,
  });
}
