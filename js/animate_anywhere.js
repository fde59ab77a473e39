// What a node of the pack shows of its work: a player for poses, points to drag, the timeline of a shot, and reports.
//
// A node gets its view with the first thing there is to show, so that a workflow opens as it was laid out. All is drawn
// when it has changed, never because the graph is drawn.

import { app } from "../../scripts/app.js"
import { api } from "../../scripts/api.js"

const PREFIX = "AA_"
const EVENT = "animate_anywhere.timeline" // nodes/shot_report.py sends it
const PICTURE_HEIGHT = 200 // px of the graph, as all sizes here
const COLOURS = { seen: "#4caf7d", filled: "#d9a441", dropped: "#d9534f", now: "#ffffff", line: "#6ea8fe", quiet: "#777" }

const STYLE = `
.aa-view { display: flex; flex-direction: column; gap: 4px; box-sizing: border-box; overflow: hidden; min-width: 0;
  color: var(--input-text, #ddd); font: 11px sans-serif; outline: none; }
.aa-view canvas { display: block; width: 100%; border-radius: 4px; touch-action: none; background: #111; }
.aa-view .aa-grow { flex: 1 1 0; min-height: 0; position: relative; }
.aa-view .aa-grow canvas { position: absolute; inset: 0; height: 100%; }
.aa-view .aa-bar { display: flex; gap: 6px; align-items: center; height: 22px; flex: none; }
.aa-view .aa-bar span { flex: 1; overflow: hidden; white-space: nowrap; text-overflow: ellipsis; }
.aa-view button { font: inherit; color: inherit; background: var(--comfy-input-bg, #333); border-radius: 4px;
  border: 1px solid var(--border-color, #555); padding: 1px 7px; cursor: pointer; }
.aa-view button:disabled { opacity: 0.4; cursor: default; }
.aa-view .aa-report { flex: none; white-space: pre-wrap; overflow: auto; line-height: 15px; user-select: text; }
`

// --- frames as text, as the nodes read and write them -----------------------------------------------------------------

function framesOf(text) {
  const frames = new Set()
  for (const part of String(text ?? "").split(",")) {
    const [first, last = first] = part.split("-").map((word) => parseInt(word, 10))
    for (let frame = first; frame <= last; frame++) frames.add(frame)
  }
  return frames
}

function framesAsText(frames) {
  const runs = []
  for (const frame of [...frames].sort((a, b) => a - b)) {
    if (runs.length && runs.at(-1)[1] === frame - 1) runs.at(-1)[1] = frame
    else runs.push([frame, frame])
  }
  return runs.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(", ")
}

// --- small things ---------------------------------------------------------------------------------------------------

function element(tag, className, parent, text) {
  const made = document.createElement(tag)
  if (className) made.className = className
  if (text) made.textContent = text
  parent?.append(made)
  return made
}

function fileUrl({ filename, subfolder, type }) {
  return api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`)
}

const clamp = (value, low, high) => Math.min(Math.max(value, low), high)

// A canvas that is drawn once for all that changed since the screen was last drawn, and when its size changes.
class Plot {
  constructor(parent, draw) {
    this.canvas = element("canvas", "", parent)
    this.draw = draw
    this.painted = 0
    new ResizeObserver(() => this.ask()).observe(this.canvas)
  }

  ask() {
    if (this.asked) return
    this.asked = requestAnimationFrame(() => {
      this.asked = undefined
      this.paint()
    })
  }

  paint() {
    const { clientWidth: width, clientHeight: height } = this.canvas
    if (!width || !height) return // not on the page now; its size will change when it is
    const ratio = Math.max(1, window.devicePixelRatio)
    this.canvas.width = Math.round(width * ratio)
    this.canvas.height = Math.round(height * ratio)
    const context = this.canvas.getContext("2d")
    context.scale(ratio, ratio)
    context.font = "10px sans-serif"
    this.draw(context, width, height)
    this.canvas.dataset.painted = ++this.painted // a test counts
  }

  // Where a pointer is, in 0…1 of the canvas, however the graph is zoomed.
  at(event) {
    const box = this.canvas.getBoundingClientRect()
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]
  }

  // ``move`` while the button is down, from the press on; ``end`` after it.
  drags(start, move, end) {
    this.canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || start(event) === false) return
      this.canvas.setPointerCapture(event.pointerId)
      move(event)
      this.canvas.onpointermove = move
      this.canvas.onpointerup = this.canvas.onpointercancel = (last) => {
        this.canvas.onpointermove = this.canvas.onpointerup = this.canvas.onpointercancel = null
        end?.(last)
      }
    })
  }
}

// The part of a picture's box that shows a picture of this aspect ratio whole.
function fitted(aspect, width, height) {
  const scale = Math.min(width / aspect, height)
  return [(width - aspect * scale) / 2, (height - scale) / 2, aspect * scale, scale]
}

// An input of the node that the view writes to, as if its editor had.
class Setting {
  constructor(node, name, changed) {
    this.node = node
    this.name = name
    const widget = this.widget
    if (!widget) return
    const callback = widget.callback
    widget.callback = function (...values) {
      callback?.apply(this, values)
      changed()
    }
  }

  get widget() {
    return this.node.widgets?.find((widget) => widget.name === this.name)
  }

  get isLinked() {
    return this.node.inputs?.some((input) => input.widget?.name === this.name && input.link != null)
  }

  get isOpen() {
    return Boolean(this.widget) && !this.isLinked
  }

  get value() {
    return this.widget?.value ?? ""
  }

  set value(value) {
    if (!this.isOpen || this.widget.value === value) return
    this.widget.value = value
    this.widget.callback?.(value, app.canvas, this.node)
    this.node.graph?.setDirtyCanvas(true, false)
  }
}

// --- the view of a node -----------------------------------------------------------------------------------------------

const views = new WeakMap()

class View {
  constructor(node) {
    this.node = node
    this.parts = new Map()
    this.root = element("div", "aa-view")
    this.root.tabIndex = -1
    this.root.addEventListener("wheel", (event) => this.passOn(event), { passive: false })
    const options = { serialize: false, hideInPanel: true, margin: 6, getMinHeight: () => this.height + 12 }
    const widget = node.addDOMWidget("aa_view", "aa_view", this.root, options)
    widget.serialize = false
    // The page lays a widget out when the graph is drawn next after it was put on the page.
    requestAnimationFrame(() => requestAnimationFrame(() => node.graph?.setDirtyCanvas(true, true)))
  }

  // Zooming goes on over a view, as over any other part of a node, unless there is text to scroll.
  passOn(event) {
    const report = event.target.closest?.(".aa-report")
    if (window.LiteGraph?.vueNodesMode || (report && report.scrollHeight > report.clientHeight)) return
    event.preventDefault()
    app.canvas.processMouseWheel(event)
  }

  get height() {
    const heights = [...this.parts.values()].map((part) => part.height)
    return heights.reduce((sum, height) => sum + height, 0) + 4 * Math.max(0, heights.length - 1)
  }

  part(Kind) {
    let part = this.parts.get(Kind)
    if (!part) this.parts.set(Kind, (part = new Kind(this)))
    return part
  }

  // The parts may have another height now: the node grows by what is missing.
  fit() {
    const { node } = this
    this.root.style.minHeight = `${this.height}px`
    const least = node.computeSize()[1]
    if (!node.flags?.collapsed && node.size[1] < least) node.setSize([node.size[0], least])
    node.graph?.setDirtyCanvas(true, false)
  }

  show(output) {
    if (output.aa_pose?.[0]) this.part(PosePlayer).show(output.aa_pose[0])
    if (output.aa_points?.[0]) this.part(PointEditor).show(output.aa_points[0])
    if (output.aa_timeline?.[0]) this.part(Timeline).show(output.aa_timeline[0])
    if (output.text?.length) this.part(Report).show(output.text.join("\n"))
    this.fit()
  }
}

function viewOf(node) {
  let view = views.get(node)
  if (!view) views.set(node, (view = new View(node)))
  return view
}

class Report {
  constructor(view) {
    this.root = element("div", "aa-report", view.root)
    this.root.style.order = 9 // below all others
    this.height = 0
  }

  show(text) {
    this.root.textContent = text
    this.height = clamp(text.split("\n").length, 1, 6) * 15
    this.root.style.height = `${this.height}px`
  }
}

// --- poses ------------------------------------------------------------------------------------------------------------

// OpenPose's 18 joints.
const LIMBS = [
  [1, 2], [2, 3], [3, 4], [1, 5], [5, 6], [6, 7], [1, 8], [8, 9], [9, 10], [1, 11], [11, 12], [12, 13], [1, 0], [0, 14],
  [14, 16], [0, 15], [15, 17],
] // prettier-ignore
const SEEN = 30 // %, as in vision/pose.py

function drawPose(context, people, [left, top, scale], colour) {
  context.lineCap = "round"
  for (const joints of people) {
    for (const [index, [a, b]] of LIMBS.entries()) {
      if (joints[3 * a + 2] < SEEN || joints[3 * b + 2] < SEEN) continue
      context.strokeStyle = colour ?? `hsl(${(index * 360) / LIMBS.length} 90% 55%)`
      context.beginPath()
      context.moveTo(left + joints[3 * a] * scale, top + joints[3 * a + 1] * scale)
      context.lineTo(left + joints[3 * b] * scale, top + joints[3 * b + 1] * scale)
      context.stroke()
    }
  }
}

class PosePlayer {
  height = PICTURE_HEIGHT + 32 + 22 + 8

  constructor(view) {
    this.frame = 0
    this.setting = new Setting(view.node, "dropped_frames", () => this.refresh())
    this.picture = new Plot(element("div", "aa-grow", view.root), (...all) => this.drawPicture(...all))
    this.picture.canvas.className = "aa-picture"
    this.strip = new Plot(view.root, (...all) => this.drawStrip(...all))
    this.strip.canvas.className = "aa-strip"
    this.strip.canvas.style.cssText = "height: 32px; flex: none; cursor: pointer"
    this.strip.canvas.title = "Drag in the upper part to look through the frames, click in the lower one to drop or keep one"
    const bar = element("div", "aa-bar", view.root)
    this.play = element("button", "aa-play", bar, "▶")
    this.text = element("span", "aa-frame", bar)
    this.toggle = element("button", "aa-drop", bar, "Drop")
    this.play.onclick = () => (this.timer ? this.stop() : this.start())
    this.toggle.onclick = () => this.drop([this.frame], !this.dropped.has(this.frame))
    this.picture.drags(() => this.stop(), (event) => this.scrub(this.picture.at(event)[0]))
    this.strip.drags(
      (event) => this.press(event),
      (event) => this.sweep(event),
    )
    view.root.addEventListener("keydown", (event) => this.key(event))
  }

  get dropped() {
    return framesOf(this.setting.value)
  }

  get count() {
    return this.data?.poses.length ?? 0
  }

  async show(file) {
    this.file = file
    const answer = await fetch(fileUrl(file))
    if (!answer.ok || this.file !== file) return // the host has emptied its temp folder, or there is a newer run
    this.data = await answer.json()
    this.filled = new Set(this.data.filled)
    this.sheets = []
    this.go(Math.min(this.frame, this.count - 1))
  }

  go(frame) {
    this.frame = frame
    this.refresh()
  }

  refresh() {
    if (!this.data) return
    const { frame } = this
    const isDropped = this.dropped.has(frame)
    const state = isDropped ? "dropped" : this.filled.has(frame) ? "filled in" : `${this.data.confidence[frame]} % seen`
    this.text.textContent = `Frame ${frame} of 0-${this.count - 1}: ${state}`
    this.toggle.textContent = isDropped ? "Keep" : "Drop"
    this.toggle.disabled = !this.setting.isOpen
    this.picture.ask()
    this.strip.ask()
  }

  scrub(x) {
    this.go(clamp(Math.floor(x * this.count), 0, this.count - 1))
  }

  // In the lower third of the strip a sweep drops frames, or keeps them if the first one was dropped.
  press(event) {
    if (!this.data) return false
    this.stop()
    const [x, y] = this.strip.at(event)
    this.sweeping = undefined
    if (y > 0.66 && this.setting.isOpen) {
      this.scrub(x)
      this.sweeping = { drops: !this.dropped.has(this.frame) }
    }
  }

  sweep(event) {
    const before = this.sweeping?.last ?? undefined
    this.scrub(this.strip.at(event)[0])
    if (!this.sweeping) return
    const from = before ?? this.frame
    const [first, last] = [Math.min(from, this.frame), Math.max(from, this.frame)]
    this.drop(Array.from({ length: last - first + 1 }, (_, i) => first + i), this.sweeping.drops)
    this.sweeping.last = this.frame
  }

  drop(frames, drops) {
    const dropped = this.dropped
    for (const frame of frames) drops ? dropped.add(frame) : dropped.delete(frame)
    this.setting.value = framesAsText(dropped)
    this.refresh()
  }

  key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key]
    if (!this.data || (!step && event.key !== "Delete")) return
    event.preventDefault()
    event.stopPropagation() // the graph would move or delete the node
    this.stop()
    if (step) this.go(clamp(this.frame + step, 0, this.count - 1))
    else this.drop([this.frame], !this.dropped.has(this.frame))
  }

  start() {
    if (!this.data) return
    this.play.textContent = "■"
    this.timer = setInterval(() => {
      if (!this.picture.canvas.isConnected) this.stop()
      else this.go((this.frame + 1) % this.count)
    }, 60)
  }

  stop() {
    clearInterval(this.timer)
    this.timer = undefined
    this.play.textContent = "▶"
  }

  sheet(index) {
    if (!this.sheets[index]) {
      const picture = (this.sheets[index] = new Image())
      picture.onload = () => this.picture.ask()
      picture.src = fileUrl(this.data.sheets[index])
    }
    return this.sheets[index]
  }

  drawPicture(context, width, height) {
    if (!this.data) return
    const { data, frame } = this
    const [left, top, shownWidth, shownHeight] = fitted(data.width / data.height, width, height)
    context.fillStyle = "#000"
    context.fillRect(left, top, shownWidth, shownHeight)
    if (data.sheets) {
      const { columns, rows, width: tileWidth, height: tileHeight } = data.layout
      const place = frame % (columns * rows)
      const sheet = this.sheet(Math.floor(frame / (columns * rows)))
      const [x, y] = [(place % columns) * tileWidth, Math.floor(place / columns) * tileHeight]
      if (sheet.complete && sheet.naturalWidth)
        context.drawImage(sheet, x, y, tileWidth, tileHeight, left, top, shownWidth, shownHeight)
    }
    const view = [left, top, shownWidth / data.width]
    context.lineWidth = clamp(shownHeight / 60, 1.5, 4)
    if (data.ghosts) drawPose(context, data.ghosts[frame], view, COLOURS.quiet)
    drawPose(context, data.poses[frame], view)
    if (this.dropped.has(frame)) {
      context.strokeStyle = COLOURS.dropped
      context.lineWidth = 2
      context.strokeRect(left + 1, top + 1, shownWidth - 2, shownHeight - 2)
    }
  }

  drawStrip(context, width, height) {
    if (!this.data) return
    const { dropped } = this
    const each = width / this.count
    const low = Math.round(height * 0.66)
    for (let frame = 0; frame < this.count; frame++) {
      const tall = Math.max(1, ((low - 2) * this.data.confidence[frame]) / 100)
      context.fillStyle = this.filled.has(frame) ? COLOURS.filled : COLOURS.seen
      context.fillRect(frame * each, low - tall, Math.max(each - 0.5, 0.5), tall)
      context.fillStyle = dropped.has(frame) ? COLOURS.dropped : "#2c2c2c"
      context.fillRect(frame * each, low + 2, Math.max(each - 0.5, 0.5), height - low - 2)
    }
    context.strokeStyle = COLOURS.now
    context.strokeRect(this.frame * each, 0.5, Math.max(each, 1), height - 1)
  }
}

// --- points of the background -----------------------------------------------------------------------------------------

const REACH = 9 // px around a point in which a press takes it

class PointEditor {
  height = PICTURE_HEIGHT + 22 + 4

  constructor(view) {
    this.setting = new Setting(view.node, "placed_points", () => this.refresh())
    this.picture = new Plot(element("div", "aa-grow", view.root), (...all) => this.draw(...all))
    const { canvas } = this.picture
    canvas.className = "aa-points"
    canvas.title = "Drag a point; double-click adds one, right-click takes one away"
    const bar = element("div", "aa-bar", view.root)
    this.text = element("span", "", bar)
    this.reset = element("button", "aa-choose", bar, "Choose for me")
    this.reset.onclick = () => (this.setting.value = "")
    this.picture.drags(
      (event) => this.press(event),
      (event) => this.move(event),
      () => this.refresh(),
    )
    canvas.addEventListener("dblclick", (event) => this.add(event))
    canvas.addEventListener("contextmenu", (event) => this.remove(event))
  }

  show(data) {
    this.data = data
    this.image = new Image()
    this.image.onload = () => this.picture.ask()
    this.image.src = fileUrl(data.picture)
    this.refresh()
  }

  // What the artist has placed; else what was chosen for the first frame.
  get points() {
    const placed = String(this.setting.value)
      .split(";")
      .map((pair) => pair.split(",").map(Number))
      .filter((pair) => pair.length === 2 && pair.every(Number.isFinite))
    return placed.length ? placed : this.data.points.map(([x, y]) => [x, y])
  }

  set points(points) {
    this.setting.value = points.map((point) => point.map((part) => +part.toFixed(4)).join(", ")).join("; ")
    this.refresh()
  }

  refresh() {
    if (!this.data) return
    const isOwn = Boolean(this.setting.value)
    const lost = isOwn && this.data.lost.length ? `, ${this.data.lost.length} lost` : ""
    this.text.textContent = `${this.points.length} points ${isOwn ? "placed" : "chosen"}${lost}`
    this.reset.disabled = !isOwn || !this.setting.isOpen
    this.picture.ask()
  }

  get box() {
    const { clientWidth, clientHeight } = this.picture.canvas
    return fitted(this.data.aspect, clientWidth, clientHeight)
  }

  // Of the pointer, in 0…1 of the picture.
  place(event) {
    const [x, y] = this.picture.at(event)
    const { clientWidth, clientHeight } = this.picture.canvas
    const [left, top, width, height] = this.box
    return [(x * clientWidth - left) / width, (y * clientHeight - top) / height]
  }

  nearest([x, y]) {
    const [, , width, height] = this.box
    const far = this.points.map(([px, py]) => Math.hypot((px - x) * width, (py - y) * height))
    const best = far.indexOf(Math.min(...far))
    return far[best] <= REACH ? best : -1
  }

  press(event) {
    if (!this.data || !this.setting.isOpen) return false
    this.taken = this.nearest(this.place(event))
    return this.taken >= 0
  }

  move(event) {
    const [x, y] = this.place(event).map((part) => clamp(part, 0, 1))
    if (event.type === "pointerdown") return // a press alone moves nothing
    this.points = this.points.map((point, index) => (index === this.taken ? [x, y] : point))
  }

  add(event) {
    const place = this.data && this.place(event)
    if (!place || !this.setting.isOpen || place.some((part) => part < 0 || part > 1) || this.nearest(place) >= 0) return
    this.points = [...this.points, place]
  }

  remove(event) {
    event.preventDefault()
    event.stopPropagation()
    const taken = this.data && this.setting.isOpen ? this.nearest(this.place(event)) : -1
    if (taken >= 0 && this.points.length > 1) this.points = this.points.filter((_, index) => index !== taken)
  }

  draw(context) {
    if (!this.data) return
    const [left, top, width, height] = this.box
    if (this.image.complete && this.image.naturalWidth) context.drawImage(this.image, left, top, width, height)
    const isOwn = Boolean(this.setting.value)
    const isLost = ([x, y]) => this.data.lost.some(([lx, ly]) => Math.hypot(lx - x, ly - y) < 1e-3)
    for (const point of this.points) {
      context.beginPath()
      context.arc(left + point[0] * width, top + point[1] * height, 4.5, 0, 2 * Math.PI)
      context.fillStyle = !isOwn ? "#0006" : isLost(point) ? COLOURS.dropped : COLOURS.line
      context.fill()
      context.lineWidth = 1.5
      context.strokeStyle = COLOURS.now
      context.stroke()
    }
  }
}

// --- the timeline of a shot -------------------------------------------------------------------------------------------

const ROW = 13
const CONDITIONS = [
  ["pose", "#6ea8fe"],
  ["environment", "#4caf7d"],
  ["reference", "#c792ea"],
]

class Timeline {
  constructor(view) {
    this.plot = new Plot(view.root, (...all) => this.draw(...all))
    this.plot.canvas.className = "aa-timeline"
    this.text = element("div", "aa-bar", view.root)
    this.view = view
  }

  get height() {
    return this.plotHeight + 22 + 4
  }

  get rows() {
    return CONDITIONS.filter(([name]) => this.data?.conditions?.[name])
  }

  get plotHeight() {
    const windows = this.data?.windows?.length ?? 0
    return this.rows.length * ROW + (windows ? 2 * ROW + 4 : 0) + (windows > 1 ? 56 : 0) + 16
  }

  show(data) {
    this.data = data
    this.plot.canvas.style.cssText = `height: ${this.plotHeight}px; flex: none`
    element("span", "", (this.text.replaceChildren(), this.text), this.summary())
    this.plot.ask()
    this.view.fit()
  }

  summary() {
    const windows = this.data.windows ?? []
    const done = windows.filter((window) => window.done)
    if (!windows.length) return `${this.data.total} frames`
    const known = done.filter((window) => window.seconds != null)
    const each = known.reduce((sum, window) => sum + window.seconds, 0) / (known.length || 1)
    const left = windows.length - done.length
    const time = left && known.length ? `, about ${Math.ceil(each * left)} s to go` : ""
    const drift = done.findLast((window) => window.drift != null)?.drift
    const colour = drift == null ? "" : `, drift ΔE ${drift.toFixed(1)}`
    return `${done.length} of ${windows.length} windows, ${this.data.total} frames${colour}${time}`
  }

  draw(context, width, height) {
    if (!this.data) return
    const { total, conditions } = this.data
    const windows = this.data.windows ?? []
    const x = (frame) => (frame / total) * (width - 2) + 1
    let top = 2
    context.textBaseline = "middle"
    for (const [name, colour] of this.rows) {
      const span = Array.isArray(conditions[name]) ? conditions[name] : [0, total]
      context.fillStyle = colour
      context.globalAlpha = 0.55
      context.fillRect(x(span[0]), top, Math.max(x(span[1]) - x(span[0]), 1), ROW - 3)
      context.globalAlpha = 1
      context.fillStyle = "#fff"
      context.fillText(name, x(span[0]) + 4, top + (ROW - 3) / 2 + 0.5)
      top += ROW
    }
    if (windows.length) {
      this.drawWindows(context, windows, x, top)
      top += 2 * ROW + 4
    }
    if (windows.length > 1) this.drawDrift(context, windows, x, top, width, 52)
    context.fillStyle = COLOURS.quiet
    context.textAlign = "left"
    context.fillText("0", 2, height - 6)
    context.textAlign = "right"
    context.fillText(`${total}`, width - 2, height - 6)
    context.textAlign = "left"
  }

  // Windows in two rows by turns, so that one sees what two of them share; that part is lighter.
  drawWindows(context, windows, x, top) {
    const next = windows.findIndex((window) => !window.done)
    for (const [index, { start, length, first_new, done }] of windows.entries()) {
      const y = top + (index % 2) * ROW
      const [left, right] = [x(start), x(Math.min(start + length, this.data.total))]
      context.fillStyle = done ? COLOURS.seen : index === next ? COLOURS.filled : "#333"
      context.fillRect(left, y, right - left, ROW - 2)
      context.fillStyle = "#0007"
      context.fillRect(left, y, Math.max(x(first_new) - left, 0), ROW - 2)
      context.strokeStyle = "#999"
      context.lineWidth = 1
      context.strokeRect(left + 0.5, y + 0.5, Math.max(right - left - 1, 1), ROW - 3)
    }
  }

  // How far each window's colours are from the first picture's, and by how much each hand-over jumps.
  drawDrift(context, windows, x, top, width, height) {
    const known = windows.filter((window) => window.done && window.drift != null)
    const most = Math.max(5, ...known.map((window) => window.drift))
    const y = (drift) => top + height - 2 - (drift / most) * (height - 14)
    context.strokeStyle = "#444"
    context.strokeRect(1.5, top + 0.5, width - 3, height - 1)
    context.fillStyle = COLOURS.quiet
    context.fillText(`drift ΔE, up to ${most.toFixed(0)}`, 5, top + 7)
    context.fillStyle = COLOURS.filled
    for (const { first_new, seam } of windows)
      if (seam != null) context.fillRect(x(first_new), top + height - 1 - clamp(seam, 0, height - 2), 2, clamp(seam, 0, height - 2))
    context.strokeStyle = context.fillStyle = COLOURS.line
    context.lineWidth = 1.5
    context.beginPath()
    for (const { start, length, drift } of known) context.lineTo(x(start + length / 2), y(drift))
    context.stroke()
    for (const { start, length, drift } of known) context.fillRect(x(start + length / 2) - 2, y(drift) - 2, 4, 4)
  }
}

// --- where it meets the page ------------------------------------------------------------------------------------------

// "5:12" is node 12 in the subgraph that is node 5.
function nodeOfExecution(id) {
  let graph = app.rootGraph
  let node
  for (const part of String(id).split(":")) {
    node = graph?.getNodeById(Number(part))
    graph = node?.subgraph
  }
  return node
}

// Outputs are kept under the node's id, or under that of the subgraph, a colon and the node's id.
function nodeOfOutput(locator) {
  const parts = String(locator).split(":")
  const graph = parts.length > 1 ? app.rootGraph.subgraphs?.get(parts[0]) : app.rootGraph
  return graph?.getNodeById(Number(parts.at(-1)))
}

const isOurs = (node) => node?.comfyClass?.startsWith(PREFIX)
const isShown = (output) => output && ["aa_pose", "aa_points", "aa_timeline", "text"].some((key) => output[key]?.length)

app.registerExtension({
  name: "AnimateAnywhere",

  setup() {
    document.head.append(Object.assign(document.createElement("style"), { textContent: STYLE }))
    api.addEventListener(EVENT, ({ detail }) => {
      const node = detail?.node == null ? undefined : nodeOfExecution(detail.node)
      if (isOurs(node)) viewOf(node).part(Timeline).show(detail)
    })
  },

  nodeCreated(node) {
    if (!isOurs(node)) return
    const onExecuted = node.onExecuted
    node.onExecuted = function (output) {
      onExecuted?.apply(this, arguments)
      if (isShown(output)) viewOf(this).show(output)
    }
  },

  // Another workflow was opened, or an earlier run looked at: its outputs are there at once.
  onNodeOutputsUpdated(outputs) {
    for (const [locator, output] of Object.entries(outputs ?? {})) {
      const node = nodeOfOutput(locator)
      if (isOurs(node) && isShown(output)) viewOf(node).show(output)
    }
  },
})
