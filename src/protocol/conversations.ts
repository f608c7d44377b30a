/**
 * OpenAI's conversations on the wire: what their requests must be, and the shapes of replies. Items have their own file.
 *
 * `include` is ignored: it asks for parts that items of texts and calls do not have.
 *
 * @module
 */

import { z } from "zod";
import { check, wanted } from "./check.ts";
import { type ItemBody, itemSchema } from "./items.ts";
import { type Metadata, metadataField } from "./metadata.ts";

/** Most items that one request adds, as at OpenAI. */
export const MAX_ADDED_ITEMS = 20;

const object = wanted("an object");
const items = z.array(itemSchema, wanted(`a list of at most ${MAX_ADDED_ITEMS} items`)).max(MAX_ADDED_ITEMS);

/** What the request must be. */
export const newConversationSchema = z.object({ metadata: metadataField, items: items.nullish() }, object);

/** A checked request for a conversation. */
export interface NewConversation {
  metadata: Metadata;
  items: ItemBody[];
}

/** The request inside a JSON value; throws `ProtocolError` naming the first field that does not fit. */
export function parseNewConversation(value: unknown): NewConversation {
  const { metadata, items } = check(newConversationSchema, value);
  return { metadata: metadata ?? {}, items: items ?? [] };
}

/** What the request must be. */
export const changedConversationSchema = z.object({ metadata: metadataField }, object).refine(
  ({ metadata }) => metadata !== undefined,
  { path: ["metadata"], error: "expected an object, or null for none, got nothing" },
);

/** The metadata inside a JSON value; throws `ProtocolError` naming the first field that does not fit. */
export function parseChangedConversation(value: unknown): Metadata {
  return check(changedConversationSchema, value).metadata ?? {};
}

/** What the request must be. */
export const newItemsSchema = z.object({ items }, object);

/** The items inside a JSON value; throws `ProtocolError` naming the first field that does not fit. */
export function parseNewItems(value: unknown): ItemBody[] {
  return check(newItemsSchema, value).items;
}

/** A conversation, without its items. */
export interface WireConversation {
  id: string;
  object: "conversation";
  /** Unix time in seconds. */
  created_at: number;
  metadata: Metadata;
}

/** The shape of a conversation. */
export function wireConversation(
  { id, createdAt, metadata }: { id: string; createdAt: number; metadata: Metadata },
): WireConversation {
  return { id, object: "conversation", created_at: createdAt, metadata };
}

/** Said of a conversation that was removed. */
export function conversationDeleted(id: string): { id: string; object: "conversation.deleted"; deleted: true } {
  return { id, object: "conversation.deleted", deleted: true };
}
