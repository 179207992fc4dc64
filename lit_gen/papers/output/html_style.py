"""The style sheet of the page: light and dark, wide and narrow, and on paper."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #faf9f6; --card: #ffffff; --ink: #1e2329; --soft: #58616c; --line: #e4e1da; --faint: #f3f1ec; --link: #1f5f8b;
  --good: #1c6b43; --good-back: #e4f2e9; --trend: #1b607a; --trend-back: #e1f0f5; --bad: #9c2f26; --bad-back: #faeae7;
  --none: #5c636b; --none-back: #efedea;
  --series-0: #0072b2; --series-1: #c75400; --series-2: #00805d; --series-3: #a64d82; --series-4: #806600;
  --series-5: #44474b;
  --serif: ui-serif, "Iowan Old Style", "Palatino Linotype", Palatino, "Source Serif 4", Georgia, serif;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", Arial, sans-serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171b; --card: #1b1f24; --ink: #e5e3de; --soft: #a0a9b3; --line: #2f353c; --faint: #22272d;
    --link: #8cbfe6;
    --good: #86d3a8; --good-back: #183326; --trend: #84cbe4; --trend-back: #143340; --bad: #f2a79d; --bad-back: #43201c;
    --none: #aab1b9; --none-back: #2a2f35;
    --series-0: #5cb8f0; --series-1: #f59a58; --series-2: #3fcf9f; --series-3: #e5a3c9; --series-4: #e3c44a;
    --series-5: #c5c8cc;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; scroll-padding-top: 1rem; }
body { margin: 0; background: var(--page); color: var(--ink); font: 1rem/1.6 var(--sans); overflow-wrap: break-word; }
main { max-width: 70rem; margin: 0 auto; padding: 3.5rem 2rem 4rem; }
h1, h2, h3 { font-family: var(--serif); font-weight: 600; line-height: 1.22; text-wrap: balance; margin: 0; }
h1 { font-size: clamp(1.6rem, 1.1rem + 2.2vw, 2.5rem); letter-spacing: -.012em; max-width: 26em; }
h2 { font-size: 1.4rem; margin: 3rem 0 1rem; }
h3 { font-size: 1.1rem; display: inline; }
h4 { font-size: .9rem; margin: 1.75rem 0 .5rem; }
h5 { font-size: .95rem; margin: 0 0 .5rem; }
p, ul, dl { margin: 0; }
a { color: var(--link); text-underline-offset: .18em; text-decoration-thickness: .06em; }
a:hover { text-decoration-thickness: .12em; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 3px; border-radius: 3px; }
.over { color: var(--soft); font-size: .9rem; margin-bottom: .6rem; }
.cite { font-size: 1.08rem; margin-top: .9rem; color: var(--soft); }
.cite + .cite { margin-top: .15rem; }
.counts { display: flex; flex-wrap: wrap; gap: .5rem; list-style: none; padding: 0; margin: 1.4rem 0 0; }
.warning { margin: 1.5rem 0 0; padding: .8rem 1rem; border-left: 3px solid var(--bad); background: var(--bad-back); }
.notes { margin: 1.75rem 0 0; padding-left: 1.1rem; max-width: 46rem; font-size: .95rem; color: var(--soft); }
.notes li + li { margin-top: .35rem; }
.soft, .small { color: var(--soft); }
.small { font-size: .845rem; line-height: 1.45; display: block; }
.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
sup { font-size: .72em; line-height: 0; color: var(--soft); padding-left: .1em; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }

.badge { display: inline-flex; align-items: baseline; gap: .4em; padding: .1em .65em; border-radius: 1em;
  font-size: .845rem;
  font-weight: 600; white-space: nowrap; line-height: 1.6; color: var(--none); background: var(--none-back); }
.badge.reproduced { color: var(--good); background: var(--good-back); }
.badge.trend-only { color: var(--trend); background: var(--trend-back); }
.badge.not-reproduced { color: var(--bad); background: var(--bad-back); }

.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.scroll { overflow-x: auto; }
.comparisons th, .comparisons td { min-width: 5rem; }
.comparisons thead th { white-space: normal; vertical-align: bottom; }
.comparisons :nth-child(-n + 3), .comparisons :last-child { min-width: 9rem; }
.measured { margin-bottom: .75rem; }
table { border-collapse: collapse; width: 100%; font-size: .95rem; line-height: 1.45; }
th, td { text-align: left; vertical-align: top; padding: .65rem .9rem; }
thead th { font-size: .845rem; font-weight: 600; color: var(--soft); white-space: nowrap;
  border-bottom: 1px solid var(--line); }
tbody + tbody > tr:first-child > *, .plain tbody tr + tr > * { border-top: 1px solid var(--line); }
tbody th { font-weight: 600; }
.right { text-align: right; }
.results td:last-child { min-width: 14rem; max-width: 21rem; }
.results th[scope=rowgroup] { min-width: 9rem; max-width: 15rem; }
.results th a { color: inherit; text-decoration-color: var(--line); }
.results th a:hover { text-decoration-color: currentColor; }
.legend { margin-top: 1rem; font-size: .875rem; color: var(--soft); max-width: 54rem; }
.legend li { margin-top: .15rem; }
.legend ul { list-style: none; padding: 0; margin-top: .35rem; }
.legend ul li { display: grid; grid-template-columns: 4.6rem minmax(0, 1fr); }
.legend b { font-weight: 600; }

details.row { margin-top: .75rem; }
summary { cursor: pointer; padding: .85rem 1.1rem; border-radius: 10px; }
summary::marker { color: var(--soft); }
summary:hover { background: var(--faint); }
summary .badge { margin-left: .6rem; }
.inside { padding: 0 1.25rem 1.5rem; scroll-margin-top: 4.5rem; }
.inside > h4:first-child { margin-top: .75rem; }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) minmax(0, 1fr); gap: .25rem 1.25rem;
  font-size: .92rem; }
dt { color: var(--soft); }
dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
code, pre { font-family: var(--mono); font-size: .845em; }
pre { margin: 0; padding: .75rem .9rem; background: var(--faint); border-radius: 6px; line-height: 1.55;
  overflow: auto; tab-size: 2; }
pre.command { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .845rem; margin-bottom: .8rem; }
pre.config { max-height: 26rem; font-size: .8rem; }
.plain { width: auto; min-width: min(100%, 24rem); font-size: .92rem; }
.plain th, .plain td { padding: .4rem 1.1rem .4rem 0; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); gap: 1.5rem 2rem; }
figure { margin: 0; max-width: 34rem; min-width: 0; }
figcaption { font-size: .875rem; color: var(--soft); margin-top: .4rem; }
figure img { display: block; max-width: 100%; height: auto; border-radius: 4px; border: 1px solid var(--line); }
.keys { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; list-style: none; padding: 0; }
.keys li { display: flex; align-items: center; gap: .45rem; }
svg { display: block; width: 100%; height: auto; }
svg.sample { width: 24px; height: 8px; flex: none; }
svg text { font-family: var(--sans); fill: var(--soft); }
svg .tick { font-size: 11.5px; font-variant-numeric: tabular-nums; }
svg .name { font-size: 12px; }
svg .grid { stroke: var(--line); fill: none; }
svg .axis { stroke: var(--soft); fill: none; }
svg .curve { fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
.run { padding: 1rem 0; border-top: 1px solid var(--line); }
.run:first-of-type { border-top: 0; padding-top: 0; }
.run details { margin-top: .6rem; }
.run summary { padding: .3rem .4rem; margin-left: -.4rem; font-size: .92rem; color: var(--link); }
.run details pre { margin-top: .4rem; }
footer { margin-top: 3.5rem; font-size: .845rem; color: var(--soft); }

@media (max-width: 46rem) {
  main { padding: 1.75rem 1rem 3rem; }
  h2 { margin-top: 2.25rem; }
  .results, .results thead, .results tbody, .results tr, .results th, .results td { display: block; }
  .results thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  .results-card { background: none; border: 0; border-radius: 0; overflow: visible; }
  .results tbody { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .35rem 0; }
  .results tbody + tbody { margin-top: .85rem; }
  .results tbody + tbody > tr:first-child > * { border-top: 0; }
  .results th[scope=rowgroup] { max-width: none; font-family: var(--serif); font-size: 1.08rem;
    padding: .6rem 1rem .4rem; }
  .results tr + tr { border-top: 1px solid var(--line); margin-top: .4rem; padding-top: .4rem; }
  .results td { display: grid; grid-template-columns: 6.4rem minmax(0, 1fr); gap: .75rem; padding: .22rem 1rem;
    text-align: left; }
  .results td::before { content: attr(data-label); color: var(--soft); font-size: .875rem; }
  .results td.right { text-align: left; }
  .results td.empty { display: none; }
  .results td[data-label=quantity] { display: block; font-weight: 600; padding-top: .4rem; }
  .results td[data-label=quantity]::before { content: none; }
  .results td:last-child { min-width: 0; max-width: none; padding-bottom: .5rem; }
  .inside { padding: 0 1rem 1.25rem; }
  summary { padding: .8rem 1rem; }
  summary .badge { margin-left: .3rem; }
  .badge { white-space: normal; }
  dl { grid-template-columns: minmax(0, 1fr); gap: 0; }
  dd { margin-bottom: .45rem; }
  svg .tick { font-size: 14px; }
  svg .name { font-size: 14.5px; }
}
@media (prefers-reduced-motion: no-preference) { html { scroll-behavior: smooth; } }
@media print {
  :root { color-scheme: light; --page: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #bbb; --faint: #fff;
    --link: #000; }
  body { font-size: 10pt; }
  main { max-width: none; padding: 0; }
  details::details-content { content-visibility: visible; block-size: auto; }
  .card { border-color: #bbb; }
  figure, .results tbody, .run { break-inside: avoid; }
  h2, h3, h4, summary { break-after: avoid; }
  pre { white-space: pre-wrap; border: 1px solid #bbb; }
  pre.config { max-height: none; }
  .badge { border: 1px solid currentColor; }
}
"""
