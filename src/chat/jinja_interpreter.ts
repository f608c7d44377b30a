/**
 * The Jinja interpreter of @huggingface/jinja, bounded. A template comes with a model file from anywhere, so it is a
 * program of a stranger: it may loop, recurse and grow strings, and must end in an error instead of taking the server
 * along.
 *
 * Four measures, each needed: every evaluation is counted and the clock read (loops); nesting is counted (recursion);
 * every value has a size, the length it would print at, and one too large is refused (doubling); operations whose one
 * step could be huge are checked before they run (`replace`, `join`, `indent`, searches, sorting). Values hold no
 * cycles, since a namespace, the only thing that can be changed, may not lie inside another value.
 *
 * The package keeps its methods private to TypeScript, so the ones used here are declared again; its version is
 * pinned exactly.
 *
 * @module
 */

import { type Environment, Interpreter } from "@huggingface/jinja";
import { ChatTemplateError } from "./message.ts";

/** How much a template may do. */
export interface JinjaLimits {
  /** Characters of the template itself. */
  templateChars: number;
  /** Spaces in a row in the template: the package's lexer needs time quadratic in them. */
  spaces: number;
  /** Evaluations of a node. */
  steps: number;
  /** Evaluations inside each other. */
  depth: number;
  /** Milliseconds. */
  timeMs: number;
  /** Characters of one value, of the prompt, and of the messages; {@linkcode NODE_CHARS} more for each list element. */
  chars: number;
  /** Characters of all values ever made. */
  totalChars: number;
}

/** What an element of a list or a field of an object counts besides its text: about its memory. */
export const NODE_CHARS = 64;
/** Lists and objects inside each other. */
const VALUE_DEPTH = 64;
/** Comparisons of single characters that one text search may need: length times length. */
const SEARCH_STEPS = 2 ** 28;
/** Size of what may be sorted; sorting compares long texts many times. */
const SORT_CHARS = 2 ** 18;
/** Length of an attribute path, which is taken apart anew for every element. */
const PATH_CHARS = 256;

/** A runtime value of the interpreter. */
interface Value {
  type: string;
  value: unknown;
}

/** A node of the syntax tree. */
interface Node {
  type: string;
}

type MemberNode = Node & { object: Node; property: Node & { value?: unknown }; computed: boolean };
type BinaryNode = Node & { operator: { value: string }; left: Node; right: Node };
type FilterNode = Node & { value?: string; callee?: { value?: string }; args?: Node[] };
type SetNode = Node & { assignee: Node & { object?: Node } };
type Keywords = ReadonlyMap<string, Value>;
type Callable = (args: Value[], scope: Environment) => Value;

/** The methods of the package's interpreter that are bounded. */
interface Unbounded {
  evaluate(node: Node | undefined, scope: Environment): Value;
  evaluateBlock(statements: Node[], scope: Environment): Value;
  evaluateArguments(args: Node[], scope: Environment): [Value[], Map<string, Value>];
  evaluateBinaryExpression(node: BinaryNode, scope: Environment): Value;
  evaluateMemberExpression(node: MemberNode, scope: Environment): Value;
  evaluateSet(node: SetNode, scope: Environment): Value;
  applyFilter(operand: Value, filter: FilterNode, scope: Environment): Value;
}

const UnboundedInterpreter = Interpreter as unknown as new (env: Environment) => Unbounded;

/** A node that stands for a value already at hand, so that a checked operand is not evaluated twice. */
class Evaluated implements Node {
  readonly type = "Evaluated";
  constructor(readonly result: Value) {}
}

/** Nodes whose evaluation makes a new value; the others hand on one that exists. */
const MAKERS: ReadonlySet<string> = new Set([
  "ArrayLiteral",
  "BinaryExpression",
  "CallExpression",
  "CallStatement",
  "FilterExpression",
  "FilterStatement",
  "ObjectLiteral",
  "TupleLiteral",
]);

const NO_KEYWORDS: Keywords = new Map();

/** The length a value would print at, and how deeply it is nested. */
interface Size {
  chars: number;
  depth: number;
}

/** An interpreter for one rendering. */
export class BoundedInterpreter extends UnboundedInterpreter {
  readonly #limits: JinjaLimits;
  readonly #now: () => number;
  readonly #deadline: number;
  /** Sizes of lists and objects, which never change. */
  readonly #sizes = new WeakMap<Value, Size>();
  /** Filter calls whose arguments are yet to be evaluated, by the arguments' nodes. */
  readonly #filters = new WeakMap<Node[], { name: string; operand: Value }>();
  #steps = 0;
  #depth = 0;
  #total = 0;

  /** An interpreter over the variables of `env`; `now` gives milliseconds. */
  constructor(env: Environment, limits: JinjaLimits, now: () => number) {
    super(env);
    this.#limits = limits;
    this.#now = now;
    this.#deadline = now() + limits.timeMs;
  }

  override evaluate(node: Node | undefined, scope: Environment): Value {
    if (node instanceof Evaluated) return node.result;
    this.#step();
    if (++this.#depth > this.#limits.depth) throw limit(`expected at most ${this.#limits.depth} nested steps`);
    try {
      const value = super.evaluate(node, scope);
      this.#admit(value, node !== undefined && MAKERS.has(node.type));
      return value;
    } finally {
      this.#depth--;
    }
  }

  override evaluateBlock(statements: Node[], scope: Environment): Value {
    const text = super.evaluateBlock(statements, scope);
    this.#admit(text, false);
    return text;
  }

  override evaluateSet(node: SetNode, scope: Environment): Value {
    const result = super.evaluateSet(node, scope);
    const { type, object } = node.assignee;
    if (type === "MemberExpression") this.#admit(this.evaluate(object, scope), true);
    return result;
  }

  override evaluateBinaryExpression(node: BinaryNode, scope: Environment): Value {
    if (node.operator.value !== "in" && node.operator.value !== "not in") {
      return super.evaluateBinaryExpression(node, scope);
    }
    const left = this.evaluate(node.left, scope);
    const right = this.evaluate(node.right, scope);
    this.#checkSearch(right.value, left.value);
    return super.evaluateBinaryExpression({ ...node, left: new Evaluated(left), right: new Evaluated(right) }, scope);
  }

  override evaluateMemberExpression(node: MemberNode, scope: Environment): Value {
    const object = this.evaluate(node.object, scope);
    const slice = node.property.type === "SliceExpression";
    let { property } = node;
    let key = property.value;
    if (node.computed && !slice) {
      const value = this.evaluate(property, scope);
      [property, key] = [new Evaluated(value), value.value];
    }
    const member = super.evaluateMemberExpression({ ...node, object: new Evaluated(object), property }, scope);
    this.#admit(member, slice);
    return this.#checkedMethod(object, key, member);
  }

  override applyFilter(operand: Value, filter: FilterNode, scope: Environment): Value {
    if (filter.type === "Identifier") this.#checkCall(filter.value, operand, [], NO_KEYWORDS);
    else if (filter.args !== undefined) this.#filters.set(filter.args, { name: filter.callee?.value ?? "", operand });
    return super.applyFilter(operand, filter, scope);
  }

  override evaluateArguments(args: Node[], scope: Environment): [Value[], Map<string, Value>] {
    // Taken out before evaluating: arguments may apply the same filter again, by way of a macro.
    const filter = this.#filters.get(args);
    this.#filters.delete(args);
    const [positional, keywords] = super.evaluateArguments(args, scope);
    if (filter !== undefined) this.#checkCall(filter.name, filter.operand, positional, keywords);
    return [positional, keywords];
  }

  /** Methods of texts and objects are values too, so their check goes with them. */
  #checkedMethod(object: Value, key: unknown, member: Value): Value {
    const method = member.value;
    if (member.type !== "FunctionValue" || typeof key !== "string" || !CHECKED_METHODS.has(key)) return member;
    const checked: Callable = (args, scope) => {
      const last = args.at(-1);
      const keywords = last?.type === "KeywordArgumentsValue" ? last.value as Keywords : NO_KEYWORDS;
      this.#checkCall(key, object, args, keywords);
      return (method as Callable)(args, scope);
    };
    return new (member.constructor as new (method: Callable) => Value)(checked);
  }

  /** Refuse a filter or method whose single step would be too large. */
  #checkCall(name: string | undefined, target: Value, args: readonly Value[], keywords: Keywords): void {
    const text = typeof target.value === "string" ? target.value : undefined;
    const argument = (index: number, key: string) => (args[index] ?? keywords.get(key))?.value;
    switch (name) {
      case "join": {
        const separator = argument(0, "separator");
        if (typeof separator === "string") this.#checkGrowth(target, elements(target) * separator.length);
        break;
      }
      case "indent": {
        const width = argument(0, "width") ?? 4;
        if (text !== undefined && typeof width === "number") this.#checkGrowth(target, (count(text, "\n") + 1) * width);
        break;
      }
      case "tojson":
        return this.#checkJson(target, keywords);
      case "replace": {
        const [old, replacement] = [argument(0, "old"), argument(1, "new")];
        if (text === undefined || typeof old !== "string" || typeof replacement !== "string") break;
        this.#checkSearch(text, old);
        this.#checkGrowth(target, count(text, old) * replacement.length);
        break;
      }
      case "split": {
        const separator = argument(0, "sep");
        if (text === undefined) break;
        if (typeof separator === "string") this.#checkSearch(text, separator);
        const parts = typeof separator === "string" ? count(text, separator) : countWords(text);
        this.#checkGrowth(target, parts * NODE_CHARS);
        break;
      }
      case "sort":
      case "dictsort":
        if (this.#size(target).chars > SORT_CHARS) throw limit(`expected at most ${SORT_CHARS} characters to sort`);
        checkPath(argument(2, "attribute"));
        break;
      case "map":
        checkPath(keywords.get("attribute")?.value);
    }
  }

  #checkJson(target: Value, keywords: Keywords): void {
    const { chars, depth } = this.#size(target);
    const indent = keywords.get("indent")?.value;
    const separators = keywords.get("separators");
    const width = typeof indent === "number" ? indent * depth : 0;
    const added = width + (separators === undefined ? 0 : this.#size(separators).chars);
    this.#checkGrowth(target, (chars / NODE_CHARS) * added);
  }

  #checkGrowth(target: Value, added: number): void {
    this.#checkChars(this.#size(target).chars + added);
  }

  #checkSearch(text: unknown, wanted: unknown): void {
    if (typeof text !== "string" || typeof wanted !== "string") return;
    if (text.length * wanted.length > SEARCH_STEPS) throw limit("expected a shorter text to search for");
  }

  #checkChars(chars: number): void {
    if (chars > this.#limits.chars) throw limit(`expected values of at most ${this.#limits.chars} characters`);
  }

  #step(): void {
    if (++this.#steps > this.#limits.steps) throw limit(`expected at most ${this.#limits.steps} steps`);
    if (this.#now() > this.#deadline) throw limit(`expected at most ${this.#limits.timeMs} ms`);
  }

  /** Refuse a value that is too large, and count a fresh one. */
  #admit(value: Value | undefined, fresh: boolean): void {
    if (value === undefined) return; // the package's `first` of an empty list
    if (value.type === "NamespaceValue") {
      if (fresh) this.#checkChars(this.#sum(fields(value)).chars);
      return;
    }
    const { chars } = this.#size(value);
    this.#checkChars(chars);
    if (fresh) this.#total += chars;
    if (this.#total > this.#limits.totalChars) {
      throw limit(`expected at most ${this.#limits.totalChars} characters of values in all`);
    }
  }

  /** Size of a value as a tree, however often parts of it are shared. */
  #size(value: Value): Size {
    if (typeof value.value === "string") return { chars: value.value.length, depth: 0 };
    if (typeof value.value !== "object" || value.value === null) return { chars: NODE_CHARS, depth: 0 };
    if (value.type === "NamespaceValue") throw limit("expected no namespace inside a value");
    let size = this.#sizes.get(value);
    if (size === undefined) {
      size = this.#sum(fields(value));
      if (size.depth > VALUE_DEPTH) throw limit(`expected at most ${VALUE_DEPTH} nested values`);
      this.#sizes.set(value, size);
    }
    return size;
  }

  #sum(entries: Iterable<[unknown, Value]>): Size {
    const sum = { chars: NODE_CHARS, depth: 1 };
    for (const [key, value] of entries) {
      const { chars, depth } = this.#size(value);
      sum.chars += NODE_CHARS + chars + (typeof key === "string" ? key.length : 0);
      sum.depth = Math.max(sum.depth, depth + 1);
    }
    return sum;
  }
}

const CHECKED_METHODS: ReadonlySet<string> = new Set(["replace", "split", "dictsort"]);

/** Keys (or places) and values of a list or object. */
function fields({ value }: Value): Iterable<[unknown, Value]> {
  return Array.isArray(value) || value instanceof Map ? value.entries() : [];
}

function elements({ value }: Value): number {
  return Array.isArray(value) || typeof value === "string" ? value.length : 0;
}

/** Occurrences of `wanted`; the empty text is found before and after every character. */
function count(text: string, wanted: string): number {
  if (wanted === "") return text.length + 1;
  let found = 0;
  for (let at = text.indexOf(wanted); at >= 0; at = text.indexOf(wanted, at + wanted.length)) found++;
  return found;
}

function countWords(text: string): number {
  let words = 0;
  for (const _ of text.matchAll(/\S+/g)) words++;
  return words;
}

function checkPath(path: unknown): void {
  if (typeof path === "string" && path.length > PATH_CHARS) {
    throw limit(`expected attribute paths of at most ${PATH_CHARS} characters`);
  }
}

function limit(expected: string): ChatTemplateError {
  return new ChatTemplateError("limit", `rendering the chat template: ${expected}, got more`);
}
