/**
 * Conversations that are kept: each a list of items under an id that only its caller can use. A turn begins with what is
 * there and appends only if that is what is still there, so of two turns at once one fails and no item is lost or doubled.
 *
 * A conversation is one value of the store. One per item was tried and left: a deletion could then be larger than what KV
 * changes at once, and a turn reads all items anyway.
 *
 * Absent here: what items mean, HTTP, and how a caller is recognised.
 *
 * @module
 */

import { SessionError } from "./error.ts";
import { type Page, pageOf, type PageOptions } from "./page.ts";
import type { Entry, Store, StoreKey } from "./store.ts";

/** A conversation is kept for so long after its last change: 30 days. */
export const CONVERSATION_TTL_MS = 30 * 24 * 60 * 60 * 1000;
/** Most items of one conversation: as many as a request may have messages. */
export const MAX_CONVERSATION_ITEMS = 4096;
/** Largest item in bytes of JSON. All items together must have room in one value of the store. */
export const MAX_ITEM_BYTES = 1024 * 1024;
/** Longest id that is looked for, in UTF-16 code units. */
const MAX_ID_LENGTH = 100;
/** How often a change that does not depend on the items begins again when others are faster each time. */
const MAX_TRIES = 20;

/** Texts that a caller attaches. */
export type Metadata = Readonly<Record<string, string>>;

/** A conversation without its items. */
export interface Conversation {
  id: string;
  /** Unix time in seconds. */
  createdAt: number;
  metadata: Metadata;
}

/** The items as a turn finds them. */
export interface Opened<Item> {
  items: readonly Item[];
  /** Changes with every change of the items. */
  version: string;
}

/** Options of conversations. */
export interface ConversationsOptions {
  /** Milliseconds since 1970. */
  clock: () => number;
  /** A new unguessable id, letters and digits. */
  newId: () => string;
}

interface Kept<Item> {
  createdAt: number;
  metadata: Metadata;
  /** Counts the changes of the items. */
  revision: number;
  items: readonly Item[];
}

/** All conversations of all callers. */
export class Conversations<Item extends { readonly id: string }> {
  readonly #store: Store;
  readonly #clock: () => number;
  readonly #newId: () => string;

  /** The conversations in a store. */
  constructor(store: Store, { clock, newId }: ConversationsOptions) {
    this.#store = store;
    this.#clock = clock;
    this.#newId = newId;
  }

  /** A new conversation. */
  async create(caller: string, metadata: Metadata = {}, items: readonly Item[] = []): Promise<Conversation> {
    const id = `conv_${this.#newId()}`;
    const createdAt = Math.floor(this.#clock() / 1000);
    const kept = appended(id, { createdAt, metadata, revision: 0, items: [] }, items);
    const write = { key: keyOf(caller, id), value: kept, expect: null, ttlMs: CONVERSATION_TTL_MS };
    if (!await this.#store.commit(write)) throw conflict(id);
    return { id, createdAt, metadata };
  }

  /** The conversation, without its items. */
  async get(caller: string, id: string): Promise<Conversation> {
    return described(id, (await this.#find(caller, id)).value);
  }

  /** The conversation with other metadata; turns that are under way do not notice. */
  async update(caller: string, id: string, metadata: Metadata): Promise<Conversation> {
    return described(id, await this.#change(caller, id, (kept) => ({ ...kept, metadata })));
  }

  /** Remove the conversation and its items; a turn that is under way cannot append any more. */
  async delete(caller: string, id: string): Promise<void> {
    await this.#find(caller, id);
    await this.#store.commit({ key: keyOf(caller, id) });
  }

  /** Some of the items. */
  async items(caller: string, id: string, page: PageOptions): Promise<Page<Item>> {
    return pageOf((await this.#find(caller, id)).value.items, page);
  }

  /** One item. */
  async item(caller: string, id: string, itemId: string): Promise<Item> {
    const { items } = (await this.#find(caller, id)).value;
    return items[indexOf(items, itemId)]!;
  }

  /** Append items whatever is there. */
  async add(caller: string, id: string, items: readonly Item[]): Promise<void> {
    await this.#change(caller, id, (kept) => appended(id, kept, items));
  }

  /** Remove one item. */
  async deleteItem(caller: string, id: string, itemId: string): Promise<Conversation> {
    const kept = await this.#change(caller, id, ({ items, revision, ...rest }) => {
      return { ...rest, revision: revision + 1, items: items.toSpliced(indexOf(items, itemId), 1) };
    });
    return described(id, kept);
  }

  /** What a turn begins with. */
  async begin(caller: string, id: string): Promise<Opened<Item>> {
    const { items, revision } = (await this.#find(caller, id)).value;
    return { items, version: String(revision) };
  }

  /**
   * Append what a turn brought, if the items are those that it began with.
   *
   * @returns the version for the next turn.
   * @throws {SessionError} `conflict` when they are not, `not_found` when the conversation was removed.
   */
  async append(caller: string, id: string, version: string, items: readonly Item[]): Promise<string> {
    const { revision } = await this.#change(caller, id, (kept) => {
      if (String(kept.revision) !== version) throw conflict(id);
      return appended(id, kept, items);
    });
    return String(revision);
  }

  /** What is not there, and what is another caller's, is looked for in the same way and not found in the same way. */
  async #find(caller: string, id: string): Promise<Entry<Kept<Item>>> {
    const found = await this.#store.get<Kept<Item>>(keyOf(caller, id));
    if (!found) throw notFound("conversation", id);
    return found;
  }

  async #change(caller: string, id: string, change: (kept: Kept<Item>) => Kept<Item>): Promise<Kept<Item>> {
    for (let tries = 0; tries < MAX_TRIES; tries++) {
      const { value: kept, version: expect } = await this.#find(caller, id);
      const value = change(kept);
      if (await this.#store.commit({ key: keyOf(caller, id), value, expect, ttlMs: CONVERSATION_TTL_MS })) return value;
    }
    throw conflict(id);
  }
}

function keyOf(caller: string, id: string): StoreKey {
  if (id.length > MAX_ID_LENGTH || !id.isWellFormed()) throw notFound("conversation", id);
  return ["conversation", caller, id];
}

function described(id: string, { createdAt, metadata }: Kept<unknown>): Conversation {
  return { id, createdAt, metadata };
}

function indexOf(items: readonly { readonly id: string }[], id: string): number {
  const index = items.findIndex((item) => item.id === id);
  if (index < 0) throw notFound("item", id);
  return index;
}

function appended<Item>(id: string, kept: Kept<Item>, more: readonly Item[]): Kept<Item> {
  const items = [...kept.items, ...more];
  if (items.length > MAX_CONVERSATION_ITEMS) {
    throw tooLarge(`conversation ${id}: expected at most ${MAX_CONVERSATION_ITEMS} items, got ${items.length}`);
  }
  for (const item of more) {
    const bytes = new TextEncoder().encode(JSON.stringify(item)).length;
    if (bytes > MAX_ITEM_BYTES) throw tooLarge(`item: expected at most ${MAX_ITEM_BYTES} bytes of JSON, got ${bytes}`);
  }
  return { ...kept, revision: kept.revision + 1, items };
}

function notFound(what: "conversation" | "item", id: string): SessionError {
  return new SessionError("not_found", `${what}: expected one that is kept, got ${show(id)}`);
}

function conflict(id: string): SessionError {
  return new SessionError("conflict", `conversation ${show(id)}: expected no other change meanwhile, got one`);
}

function tooLarge(message: string): SessionError {
  return new SessionError("too_large", message);
}

function show(id: string): string {
  return JSON.stringify(id.slice(0, MAX_ID_LENGTH));
}
