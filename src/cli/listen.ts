/**
 * Where a server listens and whom that lets in: an address of this machine alone, or of others when they need keys.
 *
 * @module
 */
import { CommandError, UsageError } from "./errors.ts";
import { readSmallFile } from "./files.ts";
import type { FlagValues } from "./flags.ts";

/** Addresses that only this machine reaches. */
const LOOPBACK = /^(localhost|::1|127(\.\d{1,3}){3})$/i;

/** An address, and a certificate with its key when connections are encrypted. */
export interface Address {
  hostname: string;
  port: number;
  cert?: string;
  key?: string;
}

/** The address that the flags name; one that other machines reach needs keys, or somebody who wants none. */
export async function addressOf(values: FlagValues, keyed: boolean): Promise<Address> {
  const hostname = values.host!.replace(/^\[(.*)\]$/, "$1");
  if (!isLoopback(hostname) && !keyed && !values["insecure-no-key"]) {
    throw new UsageError(
      `--host: expected keys (--keys or LLAMERO_API_KEY) where other machines can connect, got "${values.host}" without any; ` +
        "--insecure-no-key lets everybody in",
    );
  }
  return { hostname, port: values.port!, ...await certificate(values) };
}

async function certificate({ "tls-cert": cert, "tls-key": key }: FlagValues): Promise<Pick<Address, "cert" | "key">> {
  if (cert === undefined && key === undefined) return {};
  if (cert === undefined || key === undefined) {
    throw new UsageError(`--tls-cert and --tls-key: expected both or none, got --tls-${cert ? "cert" : "key"} alone`);
  }
  const read = (flag: string, path: string) =>
    readSmallFile(path, (got) => new UsageError(`--${flag}: expected a PEM file, got ${got}: ${path}`));
  return { cert: await read("tls-cert", cert), key: await read("tls-key", key) };
}

/** What an operator should know about who can connect, and who can listen. */
export function exposure({ hostname, cert }: Address, keyed: boolean): string[] {
  if (isLoopback(hostname)) return [];
  const open = `WARNING: everybody who reaches ${hostname} can use this server, as no keys are set (--insecure-no-key)`;
  const plain =
    "keys and prompts travel unencrypted; set --tls-cert and --tls-key, or stand behind a proxy that encrypts";
  return [...keyed ? [] : [open], ...cert === undefined ? [plain] : []];
}

/** Names and origins of the flags, for the checks of the Host and Origin headers. */
export function allowed(values: FlagValues, { hostname }: Address): { hosts: string[]; origins: string[] } {
  const hosts = [hostname, ...list(values["allow-host"])];
  const origins = list(values["allow-origin"]);
  for (const origin of origins) if (!isOrigin(origin)) throw notAnOrigin(origin);
  return { hosts, origins };
}

function list(value = ""): string[] {
  return value.split(",").map((each) => each.trim()).filter((each) => each !== "");
}

function isOrigin(text: string): boolean {
  return /^https?:\/\/[^*]+$/.test(text) && URL.canParse(text) && new URL(text).origin === text;
}

function notAnOrigin(origin: string): UsageError {
  return new UsageError(`--allow-origin: expected origins such as https://chat.example, got "${origin}"`);
}

function isLoopback(hostname: string): boolean {
  return LOOPBACK.test(hostname);
}

/** Fails with a sentence when the address cannot be had: to be found out before a model is loaded, not after. */
export function tryAddress(address: Address): void {
  const { hostname, port, cert, key } = address;
  onAddress(address, () => {
    const open = cert && key ? Deno.listenTls({ hostname, port, cert, key }) : Deno.listen({ hostname, port });
    open.close();
  });
}

/** Trouble with an address as a sentence. */
export function onAddress<T>({ hostname, port }: Address, listen: () => T): T {
  try {
    return listen();
  } catch (error) {
    const reason = addressTrouble(error);
    if (!reason) throw error;
    throw new CommandError(`listening on ${hostname} port ${port} failed: ${reason}`, { cause: error });
  }
}

function addressTrouble(error: unknown): string | undefined {
  if (error instanceof Deno.errors.AddrInUse) return "the port is in use; choose another with --port";
  if (error instanceof Deno.errors.AddrNotAvailable) return "this machine does not have that address";
  if (error instanceof Deno.errors.PermissionDenied) {
    return "no permission; ports below 1024 belong to the system, choose another with --port";
  }
  if (error instanceof Deno.errors.InvalidData) {
    return `--tls-cert and --tls-key: expected a certificate and its key as PEM, got others (${error.message})`;
  }
  return undefined;
}

/** The address as clients write it. */
export function serverUrl({ hostname, port }: Deno.NetAddr, { cert }: Address): string {
  return `http${cert ? "s" : ""}://${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`;
}
