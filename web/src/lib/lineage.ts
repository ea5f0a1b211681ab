// Where models are from, drawn in layers from left to right: what people gave, the data, the run, the model it made.

import type { Lineage, LineageNode } from './wheel'

export const BOX = { width: 176, height: 56, across: 52, down: 18, margin: 12 }
const SWEEPS = 6

export interface Placed extends LineageNode {
  x: number
  y: number
}

export interface Picture {
  width: number
  height: number
  nodes: Placed[]
  edges: { from: Placed; to: Placed }[]
}

type Ends = Map<string, string[]>

/** Every node in its layer, and in an order in which few lines cross (Sugiyama's barycentres). */
export function laidOut({ nodes, edges }: Lineage): Picture {
  const known = new Set(nodes.map((node) => node.id))
  const real = edges.filter(({ from, to }) => known.has(from) && known.has(to) && from !== to)
  const into = ends(real.map(({ from, to }) => [to, from]))
  const out = ends(real.map(({ from, to }) => [from, to]))
  const layer = layersOf(nodes, into, out)
  const columns: string[][] = Array.from({ length: Math.max(0, ...layer.values()) + 1 }, () => [])
  for (const node of [...nodes].sort((a, b) => (a.at ?? 0) - (b.at ?? 0))) columns[layer.get(node.id) ?? 0]?.push(node.id)
  untangle(columns, into, out)

  const tallest = Math.max(1, ...columns.map((column) => column.length))
  const heightOf = (count: number) => count * (BOX.height + BOX.down) - BOX.down
  const height = heightOf(tallest)
  const byId = new Map(nodes.map((node) => [node.id, node]))
  const placed = new Map<string, Placed>()
  columns.forEach((column, i) => {
    const top = (height - heightOf(column.length)) / 2
    column.forEach((name, j) => {
      const node = byId.get(name)
      if (node) placed.set(name, { ...node, x: BOX.margin + i * (BOX.width + BOX.across), y: BOX.margin + top + j * (BOX.height + BOX.down) })
    })
  })
  return {
    width: columns.length * (BOX.width + BOX.across) - BOX.across + 2 * BOX.margin,
    height: height + 2 * BOX.margin,
    nodes: [...placed.values()],
    edges: real.flatMap(({ from, to }) => {
      const [one, other] = [placed.get(from), placed.get(to)]
      return one && other ? [{ from: one, to: other }] : []
    }),
  }
}

function ends(pairs: [string, string][]): Ends {
  const found: Ends = new Map()
  for (const [from, to] of pairs) found.set(from, [...(found.get(from) ?? []), to])
  return found
}

/** As far from the beginning as the longest way there is; what goes into a run lies just before it. */
function layersOf(nodes: LineageNode[], into: Ends, out: Ends): Map<string, number> {
  const layer = new Map<string, number>()
  const open = new Set<string>()
  const depth = (name: string): number => {
    const found = layer.get(name)
    if (found !== undefined) return found
    if (open.has(name)) return 0 // a circle, which there should not be, is cut here
    open.add(name)
    const at = Math.max(-1, ...(into.get(name) ?? []).map(depth)) + 1
    open.delete(name)
    layer.set(name, at)
    return at
  }
  for (const { id } of nodes) depth(id)
  // From the right, so that data has its place before the people behind it.
  for (const { id, kind } of [...nodes].sort((a, b) => (layer.get(b.id) ?? 0) - (layer.get(a.id) ?? 0))) {
    const next = (out.get(id) ?? []).map((name) => layer.get(name) ?? 0)
    if ((kind === 'data' || kind === 'people') && next.length) layer.set(id, Math.max(layer.get(id) ?? 0, Math.min(...next) - 1))
  }
  return layer
}

/** Each node to the mean place of its neighbours in the column before, then in the one behind, and so on. */
function untangle(columns: string[][], into: Ends, out: Ends): void {
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    const forth = sweep % 2 === 0
    const order = forth ? [...columns.keys()] : [...columns.keys()].reverse()
    const place = new Map(columns.flatMap((column) => column.map((name, j): [string, number] => [name, j - column.length / 2])))
    for (const i of order) {
      const column = columns[i] ?? []
      const mean = (name: string): number => {
        const near = ((forth ? into : out).get(name) ?? []).map((other) => place.get(other) ?? 0)
        return near.length ? near.reduce((sum, one) => sum + one, 0) / near.length : (place.get(name) ?? 0)
      }
      const means = new Map(column.map((name) => [name, mean(name)]))
      column.sort((a, b) => (means.get(a) ?? 0) - (means.get(b) ?? 0))
      column.forEach((name, j) => place.set(name, j - column.length / 2))
    }
  }
}

/** It and everything that it comes from. */
export function ancestry({ edges }: Picture, of: string): Set<string> {
  const found = new Set([of])
  const open = [of]
  for (let name = open.pop(); name !== undefined; name = open.pop())
    for (const { from, to } of edges)
      if (to.id === name && !found.has(from.id)) {
        found.add(from.id)
        open.push(from.id)
      }
  return found
}

/** As much of a text as fits; a Chinese character is as wide as two others. */
export function fitted(text: string, room: number): string {
  let used = 0
  for (const [i, character] of [...text].entries()) {
    used += character > '\u2e80' ? 2 : 1
    if (used > room) return `${[...text].slice(0, Math.max(1, i - 1)).join('')}…`
  }
  return text
}
