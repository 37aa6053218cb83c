// @ts-check
/** A composition: planes and lines drawn from a name, where there is no picture to show. The same name gives the same. */

import { makeSvg } from "./elements.js";

const COLOURS = ["var(--red)", "var(--blue)", "var(--yellow)"];
const SIZE = 120;

/**
 * @param {string} name
 * @returns {SVGElement}
 */
export function composition(name) {
  const next = numbers(name);
  const xs = [0, 18 + next(30), 66 + next(36), SIZE];
  const ys = [0, 20 + next(34), 70 + next(30), SIZE];
  const coloured = new Map([0, 1, 2].map((colour) => [(colour * 3 + next(3)) % 9, COLOURS[colour]]));
  const planes = [];
  for (let cell = 0; cell < 9; cell += 1) {
    const [column, row] = [cell % 3, Math.floor(cell / 3)];
    planes.push(makeSvg("rect", {
      x: xs[column], y: ys[row], width: xs[column + 1] - xs[column], height: ys[row + 1] - ys[row],
      fill: coloured.get(cell) ?? "var(--plane)",
    }));
  }
  const lines = `M${xs[1]} 0V${SIZE}M${xs[2]} 0V${SIZE}M0 ${ys[1]}H${SIZE}M0 ${ys[2]}H${SIZE}`;
  const path = makeSvg("path", { d: lines, fill: "none", stroke: "var(--line)", "stroke-width": 5 });
  return makeSvg("svg", { viewBox: `0 0 ${SIZE} ${SIZE}`, preserveAspectRatio: "xMidYMid slice", "aria-hidden": "true", class: "thumb" }, ...planes, path);
}

/**
 * Numbers that follow from a text: FNV-1a, then a linear congruential generator.
 * @param {string} text
 * @returns {(below: number) => number}
 */
function numbers(text) {
  let state = 2166136261;
  for (const character of text) state = Math.imul(state ^ character.charCodeAt(0), 16777619) >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state >>> 8) % below;
  };
}
