/** A bar chart in SVG: pointer and arrow keys read its values, a table has them all. */
import type { JSX } from "preact";
import { useState } from "preact/hooks";

export interface Bar {
  label: string;
  /** Stacked from the bottom; null where nothing was measured. */
  values: (number | null)[];
}

const WIDTH = 360;
const HEIGHT = 150;
const LEFT = 50;
const TOP = 8;
const BOTTOM = 128;
const GAP = 0.18;

function niceCeiling(value: number): number {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((step) => step * power).find((step) => step >= value) ?? value;
}

export function Chart({ title, summary, bars, series, format, empty }: {
  title: string;
  summary: string;
  bars: Bar[];
  series: string[];
  format: (value: number) => string;
  empty: string;
}): JSX.Element {
  const [chosen, choose] = useState<number | null>(null);
  const sums = bars.map((bar) => bar.values.reduce<number>((sum, value) => sum + (value ?? 0), 0));
  const measured = bars.some((bar) => bar.values.some((value) => value !== null));
  const top = niceCeiling(Math.max(0, ...sums));
  const slot = (WIDTH - LEFT) / Math.max(1, bars.length);
  const y = (value: number): number => BOTTOM - (value / top) * (BOTTOM - TOP);
  const last = bars.length - 1;
  const bar = chosen === null ? undefined : bars[Math.min(chosen, last)];
  const said = bar === undefined ? summary
    : `${bar.label}: ${series.map((name, at) => {
        const value = bar.values[at] ?? null;
        return `${series.length > 1 ? `${name} ` : ""}${value === null ? "not measured" : format(value)}`;
      }).join(", ")}`;

  function onKey(event: KeyboardEvent): void {
    const now = chosen ?? last;
    const next = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    choose(Math.min(last, Math.max(0, next)));
  }

  function onPointer(event: PointerEvent): void {
    const box = (event.currentTarget as SVGElement).getBoundingClientRect();
    const at = Math.floor((((event.clientX - box.left) / box.width) * WIDTH - LEFT) / slot);
    choose(at >= 0 && at <= last ? at : null);
  }

  if (!measured) {
    return <figure class="chart"><figcaption><strong>{title}</strong></figcaption><p class="empty">{empty}</p></figure>;
  }
  return (
    <figure class="chart">
      <figcaption>
        <strong>{title}</strong> <span class="said">{said}</span>
      </figcaption>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" tabIndex={0}
        aria-label={`${title}. ${said}. Arrow keys read single values.`}
        onKeyDown={onKey} onPointerMove={onPointer} onPointerLeave={() => choose(null)} onBlur={() => choose(null)}>
        {[0, 0.5, 1].map((share) => (
          <g key={share} class="grid">
            <line x1={LEFT} x2={WIDTH} y1={y(share * top)} y2={y(share * top)} />
            <text x={LEFT - 6} y={y(share * top) + 4} text-anchor="end">{format(share * top)}</text>
          </g>
        ))}
        {bars.map((one, at) => {
          let bottom = 0;
          return (
            <g key={at} class={at === chosen ? "chosen" : ""}>
              {one.values.map((value, which) => {
                if (value === null || value === 0) return null;
                const from = bottom;
                bottom += value;
                const height = Math.max(1, y(from) - y(bottom));
                return (
                  <rect key={which} class={`series-${which}`} rx={Math.min(2, slot / 6)}
                    x={LEFT + (at + GAP / 2) * slot} width={Math.max(0.6, slot * (1 - GAP))}
                    y={y(from) - height} height={height} />
                );
              })}
            </g>
          );
        })}
        <text class="axis" x={LEFT} y={HEIGHT - 4}>{bars[0]?.label}</text>
        {last > 0 && <text class="axis" x={WIDTH} y={HEIGHT - 4} text-anchor="end">{bars[last]?.label}</text>}
      </svg>
      {series.length > 1 && (
        <ul class="legend">
          {series.map((name, at) => <li key={name}><i class={`series-${at}`} aria-hidden="true" />{name}</li>)}
        </ul>
      )}
      <details>
        <summary>as a table</summary>
        <div class="scroll">
          <table class="plain">
            <thead><tr><th scope="col">at</th>{series.map((name) => <th key={name} scope="col" class="number">{name}</th>)}</tr></thead>
            <tbody>
              {bars.map((one, at) => (
                <tr key={at}>
                  <th scope="row">{one.label}</th>
                  {one.values.map((value, which) => (
                    <td key={which} class="number">{value === null ? "–" : format(value)}</td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </details>
    </figure>
  );
}
