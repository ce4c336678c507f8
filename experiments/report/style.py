"""The looks of the page and its one small script."""

STYLE = """
:root{color-scheme:light dark;
--page:#faf9f7;--card:#fff;--ink:#1d1c1a;--muted:#69645d;--line:#e5e1da;--faint:#f1eee9;
--blue:#1f5fa8;--orange:#b3540a;--teal:#0b7468;--purple:#7a3fa0;--good:#156a3a;--bad:#a8281f}
@media (prefers-color-scheme:dark){:root{
--page:#131416;--card:#1b1d20;--ink:#e8e5df;--muted:#a39e95;--line:#33363b;--faint:#25282c;
--blue:#7fb4ef;--orange:#efa45f;--teal:#5fc9b9;--purple:#c79be6;--good:#79d3a0;--bad:#ff958c}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;overflow-wrap:break-word;background:var(--page);color:var(--ink);
font:1rem/1.55 ui-sans-serif,system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,
"Noto Sans",sans-serif;font-variant-numeric:tabular-nums}
main,footer{max-width:68rem;margin:0 auto;padding:0 1.25rem}
header{padding:3.5rem 0 1rem}
h1{font-size:clamp(1.75rem,1.2rem + 2.6vw,2.9rem);line-height:1.12;letter-spacing:-.02em;
font-weight:650;margin:.35rem 0 1rem;text-wrap:balance;max-width:22em}
h2{font-size:1.3rem;line-height:1.25;letter-spacing:-.01em;font-weight:650;margin:0 0 .5rem}
h3{font-size:.95rem;font-weight:600;margin:0}
h3 span{font-weight:400;color:var(--muted)}
p{margin:0 0 .9rem;max-width:44rem;text-wrap:pretty}
.what{color:var(--muted);margin:0}
.lead{font-size:1.08rem;color:var(--muted)}
section{border-top:1px solid var(--line);padding:2.25rem 0 2.5rem}
section>p{color:var(--muted)}
code{font:.9em/1.4 ui-monospace,"SF Mono",Menlo,Consolas,monospace;background:var(--faint);
border-radius:4px;padding:.1em .3em;white-space:nowrap}
ul,ol,dl,figure{margin:0;padding:0;list-style:none}
dd{margin:0}
.none{color:var(--muted)}
.unseen{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.notes{border-left:3px solid var(--orange);padding:.1rem 0 .1rem .9rem;margin:0 0 1.25rem}
.warning{border-left:3px solid var(--orange);padding-left:.9rem}
footer{color:var(--muted);font-size:.875rem;padding-bottom:3rem}
button{font:inherit;color:inherit}
:focus-visible{outline:2px solid var(--blue);outline-offset:2px}

.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(8.4rem,1fr));gap:.6rem;
margin:1.75rem 0 1rem}
.figures>div{background:var(--card);border:1px solid var(--line);border-radius:10px;
padding:.8rem .9rem}
.figures dt{color:var(--muted);font-size:.85rem}
.figures dd{font-size:1.22rem;font-weight:600;letter-spacing:-.015em;line-height:1.4;
white-space:nowrap}
.figures .note{font-size:.78rem;white-space:normal;font-weight:400;letter-spacing:0;
color:var(--muted)}

.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,19rem),1fr));
gap:1.75rem 2.5rem;align-items:start}
.chart svg{max-width:40rem}.chart .sample{max-width:none}
.chart figcaption{margin-bottom:.5rem}
.legend{display:flex;flex-wrap:wrap;gap:.1rem 1rem;font-size:.85rem;color:var(--muted)}
.legend b{color:var(--ink);font-weight:600}
.legend svg{width:26px;height:10px;margin-right:.4em;vertical-align:middle}
svg{display:block;width:100%;height:auto;overflow:visible}
.legend svg{display:inline}
svg text{fill:var(--muted);font-size:12px}
svg .end{text-anchor:end}svg .middle{text-anchor:middle}
.grid{stroke:var(--line);stroke-width:1;fill:none}
.curve{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.curve.step{stroke:var(--muted);stroke-width:1;stroke-opacity:.45}
.curve.train{stroke:var(--orange);stroke-dasharray:7 4}
.curve.val{stroke:var(--blue)}
.curve.ema{stroke:var(--teal);stroke-dasharray:2 4}
.curve.many{stroke:var(--muted);stroke-width:1.2;stroke-opacity:.5}
.coordinates{min-width:34rem}
.coordinates .many{stroke:var(--ink)}
.point.many{fill:var(--muted)}
.curve.other{stroke:var(--purple);stroke-dasharray:9 3 2 3}
.point{stroke:var(--page);stroke-width:1}
.point.train{fill:var(--orange)}.point.val{fill:var(--blue)}
.point.ema{fill:var(--teal)}.point.other{fill:var(--purple)}
.best{fill:none;stroke:var(--blue);stroke-width:1.5}

.tools:empty,.tools:has([hidden]){display:none}
.tools button,summary{background:var(--card);border:1px solid var(--line);border-radius:8px;
padding:.35rem .8rem;cursor:pointer;font-size:.9rem}
.clips{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,15rem),1fr));gap:1.1rem}
.clips>li{background:var(--card);border:1px solid var(--line);border-radius:10px;overflow:hidden;
display:flex;flex-direction:column;break-inside:avoid}
.clips>.wrong{border-color:var(--bad)}
.film{display:block;width:100%;aspect-ratio:1;object-fit:contain;background:#0b0b0c;margin:0}
.film.missing{display:grid;place-content:center;text-align:center;padding:1rem;color:var(--muted);
background:var(--faint)}
.about{padding:.8rem 1rem .9rem;display:flex;flex-direction:column;gap:.5rem;flex:1;min-width:0}
.about p{margin:0}
.verdict{font-weight:650}
.right .verdict{color:var(--good)}.wrong .verdict{color:var(--bad)}
.about dl{display:grid;grid-template-columns:auto 1fr;gap:0 .7rem;font-size:.95rem}
.about dt{color:var(--muted)}
.about dd{font-weight:600;overflow-wrap:anywhere}
.guesses{font-size:.85rem}
.guesses li{display:grid;grid-template-columns:minmax(0,1fr) auto;gap:.1rem .6rem;
padding-bottom:.3rem}
.guesses li>:first-child{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.guesses .meter{grid-column:1/-1;grid-row:2;height:.3rem}
.guesses .truth>:first-child{font-weight:650;text-decoration:underline;text-underline-offset:3px;
text-decoration-thickness:1px}
.source{color:var(--muted);font-size:.78rem;overflow:hidden;text-overflow:ellipsis;
white-space:nowrap;margin-top:auto!important}
.meter{display:block;height:.5rem;border-radius:3px;background:var(--faint);overflow:hidden}
.meter i{display:block;height:100%;background:var(--blue);border-radius:3px}
.wrong .meter i{background:var(--muted)}

.scroll{overflow:auto;max-width:100%}
.scroll.tall{max-height:32rem;width:fit-content;border:1px solid var(--line);
border-radius:10px;padding:0 1rem}
table{border-collapse:collapse;font-size:.92rem}
th,td{padding:.38rem .7rem;border-bottom:1px solid var(--line);text-align:right;
font-weight:400;vertical-align:middle}
th:first-child,td:first-child{padding-left:0}
thead th{color:var(--muted);font-size:.85rem;white-space:nowrap}
.text{text-align:left}
/* Endless names may break anywhere; the width keeps short ones whole. */
:is(th,td).text{overflow-wrap:anywhere;min-width:6rem}
.tall thead th{position:sticky;top:0;background:var(--page);z-index:1}
.sortable{width:44rem;max-width:100%}
.sortable button{background:none;border:0;padding:0;cursor:pointer;color:inherit}
.sortable [aria-sort=ascending] button::after{content:" ↑"}
.sortable [aria-sort=descending] button::after{content:" ↓"}
.bar{white-space:nowrap}
.metered{display:flex;gap:.8rem;align-items:center;justify-content:flex-end}
.metered>:last-child{min-width:3.6rem}
.metered .meter{flex:1;min-width:3rem;max-width:9rem}

.confusion{border-collapse:separate;border-spacing:2px;font-size:.88rem}
.confusion th,.confusion td{border:0;padding:0}
.confusion tbody td{width:var(--cell);min-width:var(--cell);height:var(--cell);text-align:center;
background:var(--faint);border-radius:3px}
.confusion.small{--cell:6rem;font-size:1.25rem}
.confusion.medium{--cell:2.75rem}
.confusion.large{--cell:1.7rem;font-size:.7rem;border-spacing:1px}
.confusion small{display:block;font-size:.8rem;opacity:.85}
.confusion tbody th{text-align:right;padding-right:.6rem;position:sticky;left:0;
background:var(--page);z-index:1;font-size:.88rem}
.confusion tbody th span{display:block;max-width:11rem;overflow:hidden;text-overflow:ellipsis;
white-space:nowrap}
.confusion thead th{vertical-align:bottom;padding-bottom:.4rem;background:var(--page);
color:var(--ink);font-size:.88rem}
.confusion thead th span{display:block;writing-mode:vertical-rl;transform:rotate(180deg);
max-height:9rem;overflow:hidden;text-overflow:ellipsis;white-space:nowrap;margin:0 auto}
.confusion.small thead th span{writing-mode:initial;transform:none;max-width:6rem;
text-align:center}
.confusion.large th{font-size:.72rem;padding-top:.4rem}
.confusion.large tbody th{padding:0 .6rem}
.confusion.large thead th{position:sticky;top:0;z-index:2}
.corner{color:var(--muted);font-size:.78rem;text-align:right;vertical-align:bottom;
white-space:nowrap;padding:0 .6rem .4rem 0!important}
.corner span{display:block}
.large .corner{position:sticky;top:0;left:0;z-index:3;background:var(--page)}
.confusion .hit{outline:1.5px solid var(--blue);outline-offset:-1.5px}
.confusion .hit[class*=" s"]{background:color-mix(in srgb,var(--blue) var(--p),var(--card))}
.confusion .miss{background:color-mix(in srgb,var(--orange) var(--p),var(--card))}
/* The shades leave out the middle tones, on which neither dark nor light figures can be read. */
.s1{--p:12%}.s2{--p:20%}.s3{--p:28%}.s4{--p:36%}.s5{--p:45%}
.s6{--p:53%}.s7{--p:60%}.s8{--p:68%}.s9{--p:96%}.s10{--p:100%}
.confusion :is(.s9,.s10){color:var(--card)}
@media (prefers-color-scheme:dark){
.s6{--p:74%}.s7{--p:80%}.s8{--p:87%}.s9{--p:93%}
.confusion :is(.s6,.s7,.s8){color:var(--card)}}
.all{margin-top:1.5rem}
.all summary{display:inline-block;margin-bottom:1rem}
.all .scroll{max-height:40rem;border:1px solid var(--line);border-radius:10px}
.matrix{display:flex;flex-wrap:wrap;gap:1.5rem 3rem;align-items:flex-start}
.matrix>div{min-width:0}
.matrix h3,.heat-pair h3{margin-bottom:.4rem}
.heat{max-width:34rem;border:1px solid var(--line)}
.heat .ground{fill:var(--card)}.heat .right{fill:var(--blue)}.heat .wrong{fill:var(--orange)}
.heat-pair figcaption{color:var(--muted);font-size:.85rem;margin-top:.5rem;max-width:34rem}

.beside{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr));
gap:1.5rem 2.5rem;align-items:start}
.beside p{color:var(--muted)}
.reliability{max-width:22rem}
.reliability .accuracy{fill:var(--blue);fill-opacity:.3}
.reliability .amount{fill:var(--muted);fill-opacity:.55}
.reliability .gap{stroke:var(--orange);stroke-width:1.5}
.reliability .dot{fill:var(--blue)}
.ideal{stroke:var(--muted);stroke-dasharray:5 4;fill:none}

.stages li{display:grid;grid-template-columns:minmax(0,11.5rem) minmax(2rem,1fr) 5.6rem;
gap:.8rem;align-items:center;padding:.28rem 0;font-size:.92rem}
.stages li>:last-child{text-align:right;white-space:nowrap}
.stages h3{margin-bottom:.4rem}
.stages .meter i{background:var(--muted)}
.stages .slowest{font-weight:650}
.stages .slowest .meter i{background:var(--blue)}
.stages em{font-style:normal;font-weight:400;font-size:.78rem;color:var(--blue);
border:1px solid currentColor;border-radius:99px;padding:.02rem .45rem;margin-left:.3rem;
white-space:nowrap}

.settings{columns:3 17rem;column-gap:2.5rem}
.settings>div{break-inside:avoid;margin-bottom:1.4rem}
.settings dl{margin-top:.3rem;font-size:.88rem}
.settings dl div{display:flex;flex-wrap:wrap;gap:0 1rem;padding:.18rem 0;
border-bottom:1px solid var(--line)}
.settings dt{color:var(--muted);overflow-wrap:anywhere}
.settings dd{margin-left:auto;text-align:right;overflow-wrap:anywhere}

@media (max-width:34rem){
header{padding-top:2rem}
section{padding:1.75rem 0 2rem}
.figures{grid-template-columns:1fr 1fr}
.figures>div{padding:.7rem .85rem}.figures dd{font-size:1.3rem}
.clips{grid-template-columns:1fr 1fr;gap:.7rem}
.about{padding:.6rem .7rem .7rem}
.about dl{font-size:.85rem;column-gap:.45rem}
svg text{font-size:14px}
code{white-space:normal;overflow-wrap:anywhere}
.metered .meter{display:none}
.confusion.medium{--cell:2.1rem;font-size:.8rem}
.confusion tbody th span{max-width:6.5rem}
th,td{padding:.35rem .45rem}
.stages li{grid-template-columns:1fr 5rem;gap:.1rem .8rem}
.stages li>.meter{grid-column:1/-1;grid-row:2}}
@media print{
:root{--page:#fff;--card:#fff}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
header{padding-top:0}
main,footer{max-width:none}
section{padding:1.2rem 0;break-inside:auto}
h2,h3{break-after:avoid}
tr,.chart,.reliability,.heat{break-inside:avoid}
.tools,.all{display:none}
.scroll,.scroll.tall{overflow:visible;max-height:none;border:0}
.clips{grid-template-columns:repeat(4,1fr)}}
"""

SCRIPT = """
"use strict";
(() => {
  const films = [...document.querySelectorAll("video")];
  const button = document.getElementById("playing");
  let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  const seen = new Set();
  const update = () => {
    for (const film of films) {
      if (playing && seen.has(film)) film.play().catch(() => {}); else film.pause();
    }
    if (button) button.textContent = playing ? "Pause all clips" : "Play all clips";
  };
  if (button && films.length) {
    button.hidden = false;
    button.addEventListener("click", () => { playing = !playing; update(); });
    // Clips outside the window rest: many at once cost power.
    const watch = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting) seen.add(target); else seen.delete(target);
      }
      update();
    });
    for (const film of films) watch.observe(film);
    update();
  }
  for (const table of document.querySelectorAll(".sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.addEventListener("click", () => {
      const down = head.ariaSort !== "descending" && column > 0 || head.ariaSort === "ascending";
      const key = (row) => row.cells[column].dataset.key;
      const order = (a, b) => column ? (key(a) === "" ? -1 : key(a)) - (key(b) === "" ? -1 : key(b))
        : key(a).localeCompare(key(b));
      const rows = [...table.tBodies[0].rows].sort((a, b) => down ? order(b, a) : order(a, b));
      table.tBodies[0].append(...rows);
      for (const other of heads) other.ariaSort = null;
      head.ariaSort = down ? "descending" : "ascending";
    }));
  }
})();
"""
