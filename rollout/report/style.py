"""The look of the page: light or dark as the reader's system says, and on paper."""

PALETTE = """
:root { color-scheme: light dark;
  --bg: #fbfaf7; --card: #ffffff; --ink: #23262c; --soft: #666b75; --rule: #e5e2da; --fill: #f3f1ec; --on: #ffffff;
  --alarm: #9c3d0a; --alarm-bg: #fdf0e4; --plus: #1c6b3c; --plus-bg: #e6f4ea; --minus: #a03028; --minus-bg: #fbe9e7;
  --c0: #2b6cb0; --c1: #cb5a2e; --c2: #2f8762; --c3: #93702a; --c4: #7657a8; --c5: #b0446f; --c6: #3b8ba5;
  --c7: #76783f; }
@media (prefers-color-scheme: dark) { :root {
  --bg: #16181c; --card: #1d2025; --ink: #e4e5e8; --soft: #9aa0aa; --rule: #33373e; --fill: #25282e; --on: #14161a;
  --alarm: #f2a671; --alarm-bg: #33241a; --plus: #7fd19b; --plus-bg: #1b2f23; --minus: #f0958d; --minus-bg: #38211f;
  --c0: #6fa8e0; --c1: #ec8a5e; --c2: #62c193; --c3: #cdaa5c; --c4: #ab8fdc; --c5: #e07fa6; --c6: #6cc0da;
  --c7: #b3b573; } }
"""
CHARTS = """
svg text { fill: var(--soft); font-size: 10.5px; font-variant-numeric: tabular-nums; }
svg .in { fill: var(--on); font-size: 14px; font-weight: 600; }
.grid { stroke: var(--rule); }
.line { fill: none; stroke: currentColor; stroke-width: 1.7; stroke-linejoin: round; }
.band { fill: currentColor; opacity: 0.16; }
.point { fill: currentColor; }
.whisker { stroke: currentColor; stroke-width: 1.4; }
.dot, .tie { color: var(--c0); fill: currentColor; stroke: currentColor; }
.dot { stroke: none; }
.dot.faint { opacity: 0.4; }
.tie.faint { opacity: 0.16; }
.tie.marked { stroke-width: 2; }
"""
PAGE = """
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 0 24px 80px; max-width: 1060px; background: var(--bg); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
a { color: inherit; }
header { padding: 40px 0 8px; }
h1 { margin: 0; font-size: 34px; line-height: 1.15; letter-spacing: -0.02em; }
h2 { margin: 0 0 12px; font-size: 21px; letter-spacing: -0.01em; }
h3 { margin: 28px 0 8px; font-size: 15px; }
h3 small { color: var(--soft); font-weight: 400; }
.kicker { margin: 0 0 4px; color: var(--soft); font-size: 13px; letter-spacing: 0.04em; }
.result { max-width: 64ch; font-size: 18px; line-height: 1.5; }
.note, .small { max-width: 78ch; color: var(--soft); font-size: 13px; }
.small { margin: 2px 0; font-size: 12px; }
nav { position: sticky; top: 0; z-index: 1; display: flex; flex-wrap: wrap; gap: 4px 18px; padding: 10px 0;
  background: var(--bg); border-bottom: 1px solid var(--rule); font-size: 13px; }
nav a { color: var(--soft); text-decoration: none; }
nav a:hover { color: var(--ink); }
section { padding-top: 52px; scroll-margin-top: 8px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(106px, 1fr)); gap: 20px 14px;
  margin: 26px 0 14px; }
dt { color: var(--soft); font-size: 12px; }
dd { margin: 0; font-size: 20px; line-height: 1.25; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
dd small { display: block; color: var(--soft); font-size: 12px; }
figure { margin: 18px 0; }
figcaption { margin-bottom: 4px; font-size: 13.5px; font-weight: 600; overflow-wrap: anywhere; }
.multiples { display: grid; grid-template-columns: repeat(auto-fill, minmax(236px, 1fr)); gap: 10px 26px; }
.multiples figure { margin: 10px 0; min-width: 0; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 2px 0 6px; color: var(--soft); font-size: 12.5px; }
.legend i { display: inline-block; width: 10px; height: 10px; margin-right: 6px; border-radius: 2px; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
table { border-collapse: collapse; margin: 6px 0 10px; font-size: 13px; }
caption { padding: 10px 0 4px; font-weight: 600; text-align: left; white-space: nowrap; }
th, td { padding: 4px 18px 4px 0; border-bottom: 1px solid var(--rule); text-align: left; vertical-align: top; }
th { color: var(--soft); font-weight: 500; }
th.n { text-align: right; }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.scroll { overflow-x: auto; }
details { margin: 6px 0; }
summary { cursor: pointer; color: var(--soft); font-size: 13px; }
summary b, summary code { color: var(--ink); }
code, pre { font: 12.5px/1.5 ui-monospace, "SF Mono", Menlo, "DejaVu Sans Mono", monospace; }
code { overflow-wrap: anywhere; }
pre { margin: 8px 0; padding: 12px 14px; max-height: 60vh; overflow: auto; background: var(--fill);
  border-radius: 6px;
  white-space: pre-wrap; overflow-wrap: anywhere; }
.diff span { display: block; min-height: 1.5em; padding: 0 4px; }
.plus, ins { color: var(--plus); background: var(--plus-bg); }
.minus, del { color: var(--minus); background: var(--minus-bg); }
.hunk { color: var(--soft); }
.file { font-weight: 700; }
.card { margin: 14px 0; padding: 12px 18px; background: var(--card); border: 1px solid var(--rule);
  border-radius: 8px; }
.card h3 { margin: 2px 0 8px; }
.alarm { margin: 14px 0; padding: 10px 16px; color: var(--alarm); background: var(--alarm-bg); border-radius: 8px; }
.alarm ul { margin: 4px 0; padding-left: 20px; }
.tools, .decide { display: flex; flex-wrap: wrap; gap: 8px 12px; align-items: center; margin: 12px 0 6px;
  font-size: 13px; }
.tools .note { flex-basis: 100%; margin: 0; }
button { padding: 5px 16px; color: var(--ink); background: var(--fill); border: 1px solid var(--rule);
  border-radius: 6px;
  font: inherit; cursor: pointer; }
button:hover { border-color: var(--soft); }
button[data-decision="accept"].on { color: var(--plus); background: var(--plus-bg); border-color: currentColor; }
button[data-decision="reject"].on { color: var(--minus); background: var(--minus-bg); border-color: currentColor; }
input, textarea { padding: 5px 8px; color: inherit; background: var(--bg); border: 1px solid var(--rule);
  border-radius: 6px;
  font: inherit; }
textarea { flex: 1; min-width: 180px; resize: vertical; }
.state { color: var(--soft); }
@media print { nav, .tools, .decide { display: none; } body { max-width: none; padding: 0; }
  section { padding-top: 24px; } figure, .card { break-inside: avoid; } .scroll { overflow: visible;
  } pre { max-height: none; } }
"""
COLOURS = "".join(
    f".s{n}, .k{n} {{ color: var(--c{n}); }} .k{n} {{ background: var(--c{n}); }} .f{n} {{ fill: var(--c{n}); }}\n"
    for n in range(8)
)
# Passed is green, failed is quiet, what the filter found is warm, our own failures are grey: on every page alike.
OUTCOMES = "".join(
    f".outcomes .f{n} {{ fill: {colour}; }} .outcomes .k{n} {{ background: {colour}; }}\n"
    for n, colour in enumerate(("var(--c2)", "var(--c0)", "var(--c1)", "var(--c5)", "var(--soft)"))
)
