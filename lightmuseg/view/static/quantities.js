// Lengths and areas as people read them.

const number = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

/** An area, in square micrometres up to a tenth of a square millimetre. */
export function area(um2) {
  return um2 < 1e5 ? `${number.format(um2)} µm²` : `${number.format(um2 / 1e6)} mm²`;
}

export function areaMm2(mm2) {
  return `${number.format(mm2)} mm²`;
}

export function percent(share) {
  return `${number.format(100 * share)} %`;
}

/** The longest round length of at most `pixels` on the screen: its pixels and its name. */
export function roundLength(umPerPixel, pixels) {
  const most = umPerPixel * pixels;
  const power = 10 ** Math.floor(Math.log10(most));
  const um = [5, 2, 1].map((times) => times * power).find((length) => length <= most);
  return { pixels: um / umPerPixel, text: um < 1000 ? `${number.format(um)} µm` : `${number.format(um / 1000)} mm` };
}
