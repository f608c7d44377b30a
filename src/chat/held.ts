/**
 * How much of a text cannot be passed on yet, since what follows may make a marker of its end.
 *
 * @module
 */

/** Length of the longest end of `text` that is the beginning of one of `markers`, and not all of it. */
export function partialMarker(text: string, markers: readonly string[]): number {
  const longest = Math.max(...markers.map(({ length }) => length)) - 1;
  for (let from = Math.max(text.length - longest, 0); from < text.length; from++) {
    const end = text.slice(from);
    if (markers.some((marker) => marker.length > end.length && marker.startsWith(end))) return end.length;
  }
  return 0;
}

/** Where `text` ends but for spaces and the beginning of a marker. */
export function clearLength(text: string, markers: readonly string[]): number {
  return text.slice(0, text.length - partialMarker(text, markers)).trimEnd().length;
}

/** The first of `markers` in `text`. */
export function firstMarker(text: string, markers: readonly string[]): { at: number; marker: string } | undefined {
  const found = markers.map((marker) => ({ at: text.indexOf(marker), marker })).filter(({ at }) => at >= 0);
  return found.sort((a, b) => a.at - b.at)[0];
}
