/* Starts the page, and gives the console (and the tests) what computes. */

import { run } from "./engine.js";
import { runWith, startAttention, without } from "./attention.js";
import { startBugs } from "./bugs.js";
import { startDigit } from "./digit.js";
import { explain, inBookOrder, startNumber } from "./number.js";
import { frequencies, lowShare, startOctave } from "./octave.js";
import { addUp, anatomy, manyOrders, startRounding } from "./rounding.js";
import { inSetting, startReplay } from "./replay.js";
import { fma32 } from "./float32.js";
import { exp } from "./float64.js";
import { facts, networks, state, take, tensor } from "./state.js";

document.documentElement.classList.add("js");
const first = facts.number;
Object.assign(state, {
  network: networks.findIndex((network) => network.name === first.network),
  node: first.node,
  at: first.index,
});
take(state.levels);
startDigit();
startNumber();
startRounding();
startOctave();
startAttention();
startBugs();
startReplay();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => take(state.levels));
Object.assign(window, {
  refnet: {
    ...{ addUp, anatomy, exp, explain, fma32, frequencies, inBookOrder, inSetting, lowShare, manyOrders, networks },
    ...{ run, runWith, state, take, tensor, without },
  },
});
