/**
 * The one envelope in which OpenAI clients expect a failure, whole or inside a stream.
 *
 * @module
 */

/** What failed, for a program (`type`, `code`, `param`) and for a person (`message`). */
export interface WireError {
  message: string;
  type: string;
  param: string | null;
  code: string | null;
}

/** A failure as a JSON body. */
export interface ErrorEnvelope {
  error: WireError;
}

/** A failure as a JSON body, fields in OpenAI's order. */
export function errorEnvelope({ message, type, param, code }: WireError): ErrorEnvelope {
  return { error: { message, type, param, code } };
}
