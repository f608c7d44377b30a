/**
 * Hugging Face's text generation API: `POST /generate` whole, `POST /generate_stream` over SSE. The prompt is taken as it
 * stands, without a chat template.
 *
 * As with Hugging Face, the stop text that ended a reply is part of it.
 *
 * @module
 */

import type { Context, Handler } from "hono";
import type { ChatTemplate } from "../chat/template.ts";
import { literalTemplate } from "../chat/literal.ts";
import type { DoneEvent } from "../engine/engine.ts";
import {
  type GenerateDetails,
  generateEnd,
  generateError,
  generatePiece,
  type GenerateReply,
  generateReply,
  type GenerateRequest,
  hfGenerateSchema,
  parseGenerateRequest,
} from "../protocol/mod.ts";
import type { TurnEvent } from "../sessions/turn_event.ts";
import { readJson } from "./body.ts";
import { answerWhole, begun, type CompletionOptions, finishReason } from "./completions.ts";
import { originOf } from "./observe.ts";
import type { ApiEnv, Route } from "./route.ts";
import type { ApiError } from "./errors.ts";
import type { Service } from "./service.ts";
import { data, pulledStream, SSE_FILLER, SSE_HEADERS } from "./stream.ts";

/** The endpoints. */
export function generateRoutes(service: Service, options: CompletionOptions): Route[] {
  return [
    {
      method: "post",
      path: "/generate",
      summary: "A prompt continued",
      body: hfGenerateSchema,
      handler: textGeneration(service, options),
    },
    {
      method: "post",
      path: "/generate_stream",
      summary: "A prompt continued, piece by piece",
      body: hfGenerateSchema,
      replies: "text/event-stream",
      handler: textGenerationStream(service, options),
    },
  ];
}

/** `POST /generate`. */
function textGeneration(service: Service, options: CompletionOptions): Handler<ApiEnv> {
  const { headAfterMs } = options;
  const template = literalTemplate(service.engine.model);
  return async function handleGenerate(c) {
    const { request, events, fail, body } = await asked(c, service, { ...options, template });
    return await answerWhole(c, wholeReply(request, events), { ...body, headAfterMs, fail });
  };
}

/** `POST /generate_stream`. */
function textGenerationStream(service: Service, options: CompletionOptions): Handler<ApiEnv> {
  const template = literalTemplate(service.engine.model);
  return async function handleGenerateStream(c) {
    const { request, events, fail, body } = await asked(c, service, { ...options, template });
    const pieces = streamReply(request, events, fail);
    return c.body(pulledStream(pieces, { ...body, filler: SSE_FILLER }), 200, { ...SSE_HEADERS });
  };
}

/** A checked request, and the events of its reply once they have begun. */
async function asked(
  c: Context<ApiEnv>,
  service: Service,
  { template, maxBodyBytes, startAfterMs, keepAliveMs }: CompletionOptions & { template: ChatTemplate },
) {
  const request = parseGenerateRequest(await readJson(c, maxBodyBytes));
  const requestId = c.get("requestId");
  const left = new AbortController();
  const reply = { ...request, template, messages: [{ role: "user", content: request.inputs } as const] };
  return {
    request,
    events: await begun(service.reply(originOf(c), reply, left.signal), startAfterMs, left.signal),
    fail: (error: unknown) => service.fail(requestId, error),
    body: { onCancel: () => left.abort(), keepAliveMs },
  };
}

async function wholeReply(request: GenerateRequest, events: AsyncIterable<TurnEvent>): Promise<GenerateReply> {
  let text = textBefore(request);
  for await (const event of events) {
    if (event.type === "text") text += event.text;
    if (event.type !== "done") continue;
    const details = detailsOf(request, event);
    return generateReply(text + (event.stop ?? ""), request.details ? details : undefined);
  }
  throw new Error("reply ended without a done event");
}

async function* streamReply(
  request: GenerateRequest,
  events: AsyncIterable<TurnEvent>,
  fail: (error: unknown) => ApiError,
): AsyncGenerator<string> {
  let text = textBefore(request);
  try {
    for await (const event of events) {
      if (event.type === "text") {
        text += event.text;
        yield data(generatePiece(event.completionTokens, event.text));
      }
      if (event.type !== "done") continue;
      const [details, { promptTokens }, stop] = [detailsOf(request, event), event.usage, event.stop];
      yield data(generateEnd(text + (stop ?? ""), { details, promptTokens, stop }));
    }
  } catch (error) {
    const { message, status } = fail(error);
    yield data(generateError(message, status));
  }
}

function textBefore({ inputs, returnFullText }: GenerateRequest): string {
  return returnFullText ? inputs : "";
}

function detailsOf({ sampling }: GenerateRequest, event: DoneEvent): GenerateDetails {
  const ended = event.stop === undefined ? "eos_token" : "stop_sequence";
  return {
    finish_reason: finishReason(event) === "length" ? "length" : ended,
    generated_tokens: event.usage.completionTokens,
    seed: sampling.seed ?? null,
  };
}
