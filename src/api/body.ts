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
  const type = req.header("content-type") ?? "";
  if (!/^application\/json\s*(;|$)/i.test(type)) {
    throw new ApiError(415, {
      code: "unsupported_media_type",
      message: `content-type: expected application/json, got ${type ? JSON.stringify(type.slice(0, 80)) : "nothing"}`,
    });
  }
  if (Number(req.header("content-length") ?? 0) > maxBytes) throw tooLarge(maxBytes);
  return parseJson(await readText(req.raw.body, maxBytes));
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
