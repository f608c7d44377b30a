/**
 * What all sockets together take: how many a caller has, and how much nobody has read yet.
 *
 * @module
 */

/** Counts for all sockets of a process. */
export class SocketLoad {
  readonly #sockets = new Map<string, number>();
  /** Bytes that were sent and have not left. */
  unsent = 0;

  /** Counts one more socket of a caller, if it has fewer than `most`. */
  open(caller: string, most: number): boolean {
    const count = this.#sockets.get(caller) ?? 0;
    if (count >= most) return false;
    this.#sockets.set(caller, count + 1);
    return true;
  }

  /** A counted socket of a caller is gone. */
  close(caller: string): void {
    const count = this.#sockets.get(caller) ?? 0;
    if (count > 1) this.#sockets.set(caller, count - 1);
    else this.#sockets.delete(caller);
  }
}
