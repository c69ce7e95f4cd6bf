// A slide under its map, in OpenSeadragon. x0, y0 are level-0 pixels of the slide.

// how long the old map stays while tiles of the new one are on their way
const MOST_WAITING_MS = 3000;

export class SlideView {
  constructor(element, told) {
    this.element = element;
    this.told = told;
    this.details = null;
    this.map = null;
    this.changes = 0;
    this.viewer = OpenSeadragon({
      element,
      drawer: "canvas",
      showNavigationControl: false,
      showNavigator: true,
      navigatorPosition: "ABSOLUTE",
      navigatorTop: 14,
      navigatorLeft: 14,
      navigatorWidth: 132,
      navigatorHeight: 104,
      navigatorBackground: "#1b1e22",
      navigatorBorderColor: "#343a42",
      navigatorDisplayRegionColor: "#7db8ff",
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      imageLoaderLimit: 6,
      maxImageCacheCount: 300,
      maxZoomPixelRatio: 8,
      minZoomImageRatio: 0.7,
      visibilityRatio: 0.4,
      animationTime: 0.5,
      timeout: 60000,
    });
    // the page has its own keys
    for (const name of ["canvas-key", "canvas-key-press"]) {
      this.viewer.addHandler(name, (event) => { event.preventDefaultAction = true; });
    }
    this.viewer.addHandler("tile-load-failed", () => told.failed());
    for (const name of ["open", "update-viewport", "resize"]) this.viewer.addHandler(name, () => this.moved());
    this.viewer.world.addHandler("add-item", ({ item }) => {
      item.addHandler("fully-loaded-change", () => this.showWhetherBusy());
      this.showWhetherBusy();
    });
    this.viewer.world.addHandler("remove-item", () => this.showWhetherBusy());
  }

  /** Show a result; `shown` are the indices of the classes that are seen. */
  open(details, shown, opacity) {
    this.details = details;
    this.opacity = opacity;
    this.map = null;
    const change = ++this.changes;
    const layers = [];
    if (details.slide.levels) {
      layers.push({ tileSource: this.source(details.slide.levels, "slide", "jpg"), x: 0, y: 0, width: 1 });
    }
    if (details.map.levels) layers.push({ ...this.mapLayer(shown), opacity: shown.size ? opacity : 0 });
    this.viewer.close();
    if (!layers.length) return;
    this.viewer.addOnceHandler("open", () => {
      if (change !== this.changes) return;
      const { world } = this.viewer;
      this.map = details.map.levels ? world.getItemAt(world.getItemCount() - 1) : null;
    });
    this.viewer.open(layers);
  }

  source({ width, height, min_level, max_level }, what, ending) {
    const { id, version, tile } = this.details;
    return {
      width, height, tileSize: tile, tileOverlap: 0, minLevel: min_level, maxLevel: max_level,
      getTileUrl: (level, x, y) => `/results/${id}/${version}/${what}/${level}/${x}/${y}.${ending}`,
    };
  }

  mapLayer(shown) {
    const { map, level0_size, classes } = this.details;
    const indices = shown.size ? [...shown].sort((a, b) => a - b) : [classes[0].index];
    return {
      tileSource: this.source(map.levels, `map/${indices.join("-")}`, "png"),
      x: 0, y: 0, width: map.levels.width * map.downsample / level0_size[0],
    };
  }

  setOpacity(opacity) {
    this.opacity = opacity;
    this.map?.setOpacity(opacity);
  }

  /** Put a map of these classes in place of the one that is seen, once its tiles are there. */
  setShown(shown) {
    const change = ++this.changes;
    if (!this.map) return;
    if (!shown.size) {
      this.map.setOpacity(0);
      return;
    }
    const success = ({ item }) => {
      const { world } = this.viewer;
      const swap = () => {
        if (world.getIndexOfItem(item) < 0 || item === this.map) return;
        if (change !== this.changes) {
          world.removeItem(item);
          return;
        }
        item.setOpacity(this.opacity);
        world.removeItem(this.map);
        this.map = item;
      };
      item.addHandler("fully-loaded-change", (event) => { if (event.fullyLoaded) swap(); });
      setTimeout(swap, change === this.changes ? MOST_WAITING_MS : 0);
    };
    this.viewer.addTiledImage({ ...this.mapLayer(shown), opacity: 0, preload: true, success });
  }

  showWhetherBusy() {
    const { world } = this.viewer;
    const items = [...Array(world.getItemCount()).keys()].map((index) => world.getItemAt(index));
    this.element.setAttribute("aria-busy", String(!items.every((item) => item.getFullyLoaded())));
  }

  moved() {
    if (this.details && this.viewer.isOpen()) this.told.moved(this.frame());
  }

  /** Screen pixels of a level-0 pixel, and where the slide's corner is on the screen. */
  frame() {
    const { viewport } = this.viewer;
    const corner = viewport.pixelFromPoint(new OpenSeadragon.Point(0, 0), true);
    const scale = viewport.getZoom(true) * viewport.getContainerSize().x / this.details.level0_size[0];
    return { scale, x: corner.x, y: corner.y };
  }

  /** The level-0 pixel at a place of the element; null outside of the slide. */
  placeAt(x, y) {
    if (!this.details || !this.viewer.isOpen()) return null;
    const frame = this.frame();
    const x0 = (x - frame.x) / frame.scale;
    const y0 = (y - frame.y) / frame.scale;
    const [width, height] = this.details.level0_size;
    return x0 >= 0 && y0 >= 0 && x0 < width && y0 < height ? { x0, y0, step0: 1 / frame.scale } : null;
  }

  zoomBy(times) {
    if (!this.viewer.isOpen()) return;
    this.viewer.viewport.zoomBy(times);
    this.viewer.viewport.applyConstraints();
  }

  /** Pan by shares of what is seen. */
  panBy(right, down) {
    if (!this.viewer.isOpen()) return;
    const { width, height } = this.viewer.viewport.getBounds();
    this.viewer.viewport.panBy(new OpenSeadragon.Point(right * width, down * height));
    this.viewer.viewport.applyConstraints();
  }

  home() {
    if (this.viewer.isOpen()) this.viewer.viewport.goHome();
  }
}
