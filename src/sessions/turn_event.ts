/**
 * What a turn tells as it goes on.
 *
 * @module
 */

import type { ReasoningPart, ToolArgumentsPart, ToolCallPart } from "../chat/reply_part.ts";
import type { GenerateEvent } from "../engine/engine.ts";

/** What `runTurn` yields: the engine's events, where calls and thoughts are no texts. */
export type TurnEvent = GenerateEvent | ReasoningPart | ToolCallPart | ToolArgumentsPart;
