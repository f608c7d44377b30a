/**
 * Several iterations as one, in the order in which their values come.
 *
 * @module
 */

/** A value and the place of its source. */
export type Placed<T> = readonly [place: number, value: T];

/**
 * The values of all `sources`, each with its source's place. The first comes when every source has given one, so that
 * one which fails at its start is known before anything was passed on. A source is asked for its next value only when
 * the last was taken. The first failure, or leaving early, calls `stop` and ends all.
 */
export async function* merged<T>(sources: readonly AsyncIterable<T>[], stop: () => void): AsyncGenerator<Placed<T>> {
  const iterators = sources.map((source) => source[Symbol.asyncIterator]());
  const arrivals: { place: number; next: Promise<IteratorResult<T>> }[] = [];
  let wake = () => {};
  const arrived = (place: number, next: Promise<IteratorResult<T>>) => {
    arrivals.push({ place, next });
    wake();
  };
  const ask = (place: number) => {
    const next = iterators[place]!.next();
    const settled = () => arrived(place, next);
    next.then(settled, settled);
  };
  try {
    const first = iterators.map((iterator) => iterator.next());
    await Promise.all(first);
    first.forEach((next, place) => arrived(place, next));
    for (let open = iterators.length; open > 0;) {
      if (arrivals.length === 0) await new Promise<void>((resolve) => wake = resolve);
      const { place, next } = arrivals.shift()!;
      const { done, value } = await next;
      if (done) open--;
      else {
        yield [place, value];
        ask(place);
      }
    }
  } finally {
    stop();
    await Promise.allSettled(iterators.map((iterator) => iterator.return?.()));
  }
}
