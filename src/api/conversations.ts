/**
 * `/v1/conversations`: conversations and their items, each seen by its caller alone.
 *
 * @module
 */

import type { Context, Handler } from "hono";
import {
  changedConversationSchema,
  conversationDeleted,
  identified,
  type Item,
  type ItemBody,
  newConversationSchema,
  newItemsSchema,
  pageSchema,
  parseChangedConversation,
  parseNewConversation,
  parseNewItems,
  parsePageQuery,
  wireConversation,
  wirePage,
} from "../protocol/mod.ts";
import type { Conversations } from "../sessions/conversations.ts";
import { readJson, readOptionalJson } from "./body.ts";
import type { ApiEnv, Route } from "./route.ts";

/** What these handlers need. */
export interface ConversationOptions {
  conversations: Conversations<Item>;
  /** A new unguessable id, letters and digits. */
  newId: () => string;
  /** Largest body of a request. */
  maxBodyBytes: number;
}

/** The endpoints. */
export function conversationRoutes(options: ConversationOptions): Route[] {
  const all = "/v1/conversations";
  const one = `${all}/:id`;
  const items = `${one}/items`;
  const item = `${items}/:item`;
  return [
    {
      method: "post",
      path: all,
      summary: "A new conversation",
      body: newConversationSchema,
      handler: createConversation(options),
    },
    { method: "get", path: one, summary: "A conversation", handler: getConversation(options) },
    {
      method: "post",
      path: one,
      summary: "Give a conversation other metadata",
      body: changedConversationSchema,
      handler: changeConversation(options),
    },
    { method: "delete", path: one, summary: "Remove a conversation", handler: deleteConversation(options) },
    {
      method: "get",
      path: items,
      summary: "The items of a conversation, in pages",
      query: pageSchema,
      handler: listItems(options),
    },
    {
      method: "post",
      path: items,
      summary: "Add items to a conversation",
      body: newItemsSchema,
      handler: addItems(options),
    },
    { method: "get", path: item, summary: "An item of a conversation", handler: getItem(options) },
    { method: "delete", path: item, summary: "Remove an item of a conversation", handler: deleteItem(options) },
  ];
}

/** Whose conversation is meant, and which. */
function meant(c: Context<ApiEnv>): [caller: string, id: string] {
  return [c.get("caller").id, c.req.param("id")!];
}

function identify(items: readonly ItemBody[], newId: () => string): Item[] {
  return items.map((item) => identified(item, newId()));
}

function createConversation({ conversations, newId, maxBodyBytes }: ConversationOptions): Handler<ApiEnv> {
  return async function handleCreateConversation(c) {
    // OpenAI's client sends nothing for a conversation without anything.
    const { metadata, items } = parseNewConversation(await readOptionalJson(c, maxBodyBytes));
    return c.json(wireConversation(await conversations.create(c.get("caller").id, metadata, identify(items, newId))));
  };
}

function getConversation({ conversations }: ConversationOptions): Handler<ApiEnv> {
  return async function handleGetConversation(c) {
    return c.json(wireConversation(await conversations.get(...meant(c))));
  };
}

function changeConversation({ conversations, maxBodyBytes }: ConversationOptions): Handler<ApiEnv> {
  return async function handleChangeConversation(c) {
    const metadata = parseChangedConversation(await readJson(c, maxBodyBytes));
    return c.json(wireConversation(await conversations.update(...meant(c), metadata)));
  };
}

function deleteConversation({ conversations }: ConversationOptions): Handler<ApiEnv> {
  return async function handleDeleteConversation(c) {
    const [caller, id] = meant(c);
    await conversations.delete(caller, id);
    return c.json(conversationDeleted(id));
  };
}

function listItems({ conversations }: ConversationOptions): Handler<ApiEnv> {
  return async function handleListItems(c) {
    const { items, hasMore } = await conversations.items(...meant(c), parsePageQuery(c.req.query()));
    return c.json(wirePage(items, hasMore));
  };
}

function addItems({ conversations, newId, maxBodyBytes }: ConversationOptions): Handler<ApiEnv> {
  return async function handleAddItems(c) {
    const items = identify(parseNewItems(await readJson(c, maxBodyBytes)), newId);
    await conversations.add(...meant(c), items);
    return c.json(wirePage(items, false));
  };
}

function getItem({ conversations }: ConversationOptions): Handler<ApiEnv> {
  return async function handleGetItem(c) {
    return c.json(await conversations.item(...meant(c), c.req.param("item")!));
  };
}

function deleteItem({ conversations }: ConversationOptions): Handler<ApiEnv> {
  return async function handleDeleteItem(c) {
    return c.json(wireConversation(await conversations.deleteItem(...meant(c), c.req.param("item")!)));
  };
}
