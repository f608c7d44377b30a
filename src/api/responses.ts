/**
 * OpenAI's Responses API over HTTP: `POST /v1/responses` whole, streamed and in the background, and what was kept of one
 * under `/v1/responses/{id}`.
 *
 * As with chat completions, the head of a reply waits for the engine to take the request on, so that one it refuses gets
 * a status. A failure after that is the last event of a stream, `response.failed`.
 *
 * A response of the background goes on when its client leaves; every other one ends.
 *
 * @module
 */

import type { Context, Handler } from "hono";
import type { ChatMessage } from "../chat/message.ts";
import type { DoneEvent } from "../engine/engine.ts";
import {
  pageSchema,
  parsePageQuery,
  parseResponseRequest,
  parseWatchQuery,
  responseDeleted,
  type ResponseFailure,
  type ResponseRequest,
  responseSchema,
  watchSchema,
  wirePage,
  type WireResponse,
} from "../protocol/mod.ts";
import type { LoggedEvent } from "../sessions/stream_log.ts";
import type { CreateOptions, Responses } from "../sessions/responses.ts";
import type { ResponseRun } from "../sessions/response_run.ts";
import { trimmed } from "../sessions/trim.ts";
import { readJson } from "./body.ts";
import { answerWhole, type CompletionOptions } from "./completions.ts";
import { nameIgnored } from "./ignored.ts";
import type { Origin } from "./caller.ts";
import { originOf } from "./observe.ts";
import type { ApiEnv, Route } from "./route.ts";
import { renamed, type ReplyRequest, type Service } from "./service.ts";
import { pulledStream, SSE_FILLER, SSE_HEADERS, sseEvent } from "./stream.ts";
import { within } from "./timing.ts";

/** What comes of a request that only hands in. */
const NOTHING: DoneEvent = {
  type: "done",
  reason: "stop",
  usage: { promptTokens: 0, completionTokens: 0 },
  timings: { queueMs: 0, prefillMs: 0, decodeMs: 0 },
};
/** The endpoints. */
export function responseRoutes(service: Service, responses: Responses, options: CompletionOptions): Route[] {
  const one = "/v1/responses/:id";
  return [
    {
      method: "post",
      path: "/v1/responses",
      summary: "A response of the model",
      body: responseSchema,
      replies: "text/event-stream",
      handler: createResponse(service, responses, options),
    },
    {
      method: "post",
      path: "/v1/responses/input_tokens",
      summary: "How many tokens the input of a response has",
      body: responseSchema,
      handler: countInput(service, responses, options),
    },
    {
      method: "get",
      path: one,
      summary: "A response as it stands, or its events",
      query: watchSchema,
      replies: "text/event-stream",
      handler: getResponse(responses, options),
    },
    { method: "delete", path: one, summary: "Take a response away", handler: deleteResponse(responses) },
    { method: "post", path: `${one}/cancel`, summary: "End one of the background", handler: cancelResponse(responses) },
    {
      method: "get",
      path: `${one}/input_items`,
      summary: "What was handed in",
      query: pageSchema,
      handler: listInput(responses),
    },
  ];
}

/** What a response needs of a service: what the model does for a request, and how its failures are told. */
export function generation(
  service: Service,
  origin: Origin,
  request: ResponseRequest,
): Pick<CreateOptions, "caller" | "generate" | "failure"> {
  return {
    caller: origin.caller.id,
    async *generate(messages, signal) {
      if (!request.generate) return yield NOTHING;
      try {
        const wishes = wishesOf(request);
        const kept = request.truncate ? await fitting(service, messages, wishes) : messages;
        yield* service.reply(origin, { ...wishes, messages: kept }, signal);
      } catch (error) {
        throw renamed(error, ["messages"], "input");
      }
    },
    failure: (error) => failureOf(service, origin, error),
  };
}

/** What a request wants, in the words of a turn. */
function wishesOf(request: ResponseRequest): Omit<ReplyRequest, "messages"> {
  const { sampling, generation, maxTokens, stop, tools, toolChoice, parallelToolCalls, constraint, variables } =
    request;
  const wishes = { sampling, generation, maxTokens, stop, tools, toolChoice, parallelToolCalls, constraint, variables };
  return { ...wishes, reasoning: true };
}

function fitting(
  service: Service,
  messages: readonly ChatMessage[],
  { maxTokens, ...options }: Omit<ReplyRequest, "messages">,
): Promise<readonly ChatMessage[]> {
  const { contextLength } = service.engine.model;
  return trimmed(messages, {
    contextLength,
    maxTokens,
    count: (messages) => service.countTokens({ ...options, messages }),
  });
}

function failureOf(service: Service, { requestId }: Origin, error: unknown): ResponseFailure {
  const { code, message } = service.fail(requestId, error).wire;
  return { code: code ?? "failed", message };
}

function createResponse(service: Service, responses: Responses, options: CompletionOptions): Handler<ApiEnv> {
  const { maxBodyBytes, startAfterMs, headAfterMs, keepAliveMs } = options;
  return async function handleCreateResponse(c) {
    const request = parseResponseRequest(await readJson(c, maxBodyBytes));
    if (request.model !== undefined) service.requireModel(request.model);
    nameIgnored(c, request.ignored);
    const run = await responses.create(request, generation(service, originOf(c), request));
    if (request.background) return request.stream ? events(c, run, -1, options) : c.json(run.response);
    const onCancel = () => run.cancel();
    // The events are read before the run is waited for, so that it waits for its reader from the first.
    const read = request.stream ? run.log.read(-1, { holdsBack: true }) : undefined;
    await within(run.begun, startAfterMs);
    if (read) return stream(c, read, { onCancel, keepAliveMs });
    const fail = (error: unknown) => service.fail(c.get("requestId"), error);
    return await answerWhole(c, whole(run), { onCancel, keepAliveMs, headAfterMs, fail });
  };
}

/** The response as it ended, or what made it fail. */
async function whole(run: ResponseRun): Promise<WireResponse> {
  const response = await run.finished;
  if (response.status === "failed") throw run.error;
  return response;
}

function getResponse(responses: Responses, options: CompletionOptions): Handler<ApiEnv> {
  return async function handleGetResponse(c) {
    const [caller, id] = [c.get("caller").id, c.req.param("id")!];
    const { stream, startingAfter } = parseWatchQuery(c.req.query());
    if (!stream) return c.json(await responses.get(caller, id));
    return events(c, await responses.run(caller, id), startingAfter, options);
  };
}

/** Events of a response that goes on without this reader. */
function events(c: Context<ApiEnv>, run: ResponseRun, after: number, { keepAliveMs }: CompletionOptions): Response {
  return stream(c, run.log.read(after), { onCancel: () => {}, keepAliveMs });
}

function stream(
  c: Context<ApiEnv>,
  read: AsyncGenerator<readonly LoggedEvent[]>,
  body: { onCancel: () => void; keepAliveMs: number },
): Response {
  return c.body(pulledStream(pieces(read), { ...body, filler: SSE_FILLER }), 200, { ...SSE_HEADERS });
}

async function* pieces(read: AsyncGenerator<readonly LoggedEvent[]>): AsyncGenerator<string> {
  for await (const events of read) yield events.map(({ type, json }) => sseEvent(type, json)).join("");
}

function deleteResponse(responses: Responses): Handler<ApiEnv> {
  return async function handleDeleteResponse(c) {
    const id = c.req.param("id")!;
    await responses.delete(c.get("caller").id, id);
    return c.json(responseDeleted(id));
  };
}

function cancelResponse(responses: Responses): Handler<ApiEnv> {
  return async function handleCancelResponse(c) {
    return c.json(await responses.cancel(c.get("caller").id, c.req.param("id")!));
  };
}

function listInput(responses: Responses): Handler<ApiEnv> {
  return async function handleListInput(c) {
    const page = parsePageQuery(c.req.query());
    const { items, hasMore } = await responses.inputItems(c.get("caller").id, c.req.param("id")!, page);
    return c.json(wirePage(items, hasMore));
  };
}

function countInput(service: Service, responses: Responses, { maxBodyBytes }: CompletionOptions): Handler<ApiEnv> {
  return async function handleCountInput(c) {
    const request = parseResponseRequest(await readJson(c, maxBodyBytes));
    if (request.model !== undefined) service.requireModel(request.model);
    const messages = await responses.messages(request, { caller: c.get("caller").id });
    const input_tokens = await service.countTokens({ ...wishesOf(request), messages });
    return c.json({ object: "response.input_tokens", input_tokens });
  };
}
