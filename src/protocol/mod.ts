/**
 * Wire shapes, and checks from `unknown` to them. This room stands alone, so that a client can use it without the server.
 *
 * @module
 */

export {
  chatChunk,
  type ChatCompletion,
  chatCompletion,
  type ChatCompletionChunk,
  type ChatDelta,
  type ChatRequest,
  type ChatUsage,
  chatUsage,
  parseChatRequest,
  type ReplyHead,
  type WireFinishReason,
} from "./chat.ts";
export { parseJson, ProtocolError, type ProtocolErrorCode } from "./check.ts";
export {
  type Completion,
  completion,
  type CompletionChoice,
  type CompletionChunk,
  completionChunk,
  type CompletionRequest,
  DEFAULT_MAX_TOKENS,
  MAX_CHOICES,
  parseCompletionRequest,
  type WirePrompt,
} from "./completion.ts";
export { type ErrorEnvelope, errorEnvelope, type WireError } from "./error.ts";
export {
  type GenerateDetails,
  generateEnd,
  type GenerateError,
  generateError,
  type GenerateFinishReason,
  type GeneratePiece,
  generatePiece,
  type GenerateReply,
  generateReply,
  type GenerateRequest,
  parseGenerateRequest,
} from "./generate.ts";
export type { WireMessage, WireRole } from "./message.ts";
export { type WireModel, wireModel, type WireModelList, wireModelList } from "./models.ts";
export {
  type OllamaChatRequest,
  type OllamaEnd,
  ollamaEnd,
  type OllamaError,
  type OllamaFacts,
  type OllamaGenerateRequest,
  type OllamaLine,
  ollamaLine,
  type OllamaRequest,
  type OllamaSaid,
  type OllamaShow,
  ollamaShow,
  type OllamaTags,
  ollamaTags,
  parseOllamaChat,
  parseOllamaGenerate,
  parseOllamaShow,
} from "./ollama.ts";
export {
  type CancelFrame,
  type ClientFrame,
  type CreateFrame,
  type OutputMessage,
  type OutputText,
  parseClientFrame,
  type ResponseEnd,
  type ResponseEvent,
  type ResponseFailure,
  type ResponseStatus,
  type ResponseUsage,
  responseUsage,
  ResponseWriter,
  type ServerEvent,
  type SocketErrorEvent,
  type WireResponse,
} from "./responses.ts";
export type { WireSampling } from "./sampling.ts";
export { VERSION } from "./version.ts";
export {
  type DetokenizeRequest,
  parseDetokenizeRequest,
  parseTemplateRequest,
  parseTokenChecks,
  parseTokenizeRequest,
  type TemplateRequest,
  type TokenCheck,
  type TokenizeRequest,
  type WireTokenCheck,
  wireTokenCheck,
} from "./tokens.ts";
