/**
 * The parts that a reply is made of.
 *
 * @module
 */

/** A piece of what the model says; never empty. */
export interface SaidPart {
  type: "text";
  text: string;
}

/** A piece of what the model thinks before it speaks; never empty. */
export interface ReasoningPart {
  type: "reasoning";
  text: string;
}

/** The model calls a function: the call begins. Its number counts the calls of the reply from 0. */
export interface ToolCallPart {
  type: "tool_call";
  index: number;
  id: string;
  name: string;
}

/** A piece of the arguments of a call, JSON; never empty. */
export interface ToolArgumentsPart {
  type: "tool_arguments";
  index: number;
  text: string;
}

/** A part of a reply. */
export type ReplyPart = SaidPart | ReasoningPart | ToolCallPart | ToolArgumentsPart;
