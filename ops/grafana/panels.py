"""Words in which dashboards.py tells the dashboards, and what they become as Grafana's JSON.

Nothing here is about Outlive, except for what all its dashboards share: the source, the variable `cluster`, the links.
"""

from dataclasses import dataclass, field

SOURCE = {"type": "prometheus", "uid": "prometheus"}
WIDTH = 24
GOOD, WARN, BAD, CALM, OFF = "green", "orange", "red", "blue", "dark-red"


@dataclass
class Query:
    """One expression. `may_be_empty` says why it may have no data on a system that is well and was used a little."""

    expr: str
    legend: str = ""
    instant: bool = False
    heatmap: bool = False
    may_be_empty: str = ""


@dataclass
class Panel:
    kind: str
    title: str
    description: str
    queries: list
    width: int
    height: int = 8
    unit: str = "short"
    options: dict = field(default_factory=dict)
    custom: dict = field(default_factory=dict)
    thresholds: list = field(default_factory=lambda: [(None, GOOD)])
    mappings: list = field(default_factory=list)
    colour: str = "palette-classic"
    bounds: dict = field(default_factory=dict)
    transformations: list = field(default_factory=list)


@dataclass
class Row:
    title: str
    panels: list


@dataclass
class Dashboard:
    uid: str
    title: str
    description: str
    rows: list
    variables: list = field(default_factory=list)
    refresh: str = "5s"
    span: str = "now-15m"


# Kinds of panels.


def lines(title, description, *queries, width=12, stacked=False, **more):
    custom = {
        "drawStyle": "line",
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "fillOpacity": 40 if stacked else 8,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
    }
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return Panel("timeseries", title, description, list(queries), width, options=options, custom=custom, **more)


def stat(title, description, query, width=3, height=4, text="auto", graph="area", calculation="lastNotNull", **more):
    options = {
        "graphMode": graph,
        "colorMode": "background_solid",
        "justifyMode": "auto",
        "textMode": text,
        "wideLayout": True,
        "showPercentChange": False,
        "orientation": "auto",
        "reduceOptions": {"calcs": [calculation], "fields": "", "values": False},
    }
    more.setdefault("colour", "thresholds")
    return Panel("stat", title, description, [query], width, height, options=options, **more)


def timeline(title, description, *queries, width=24, height=8, show="auto", **more):
    options = {
        "showValue": show,
        "rowHeight": 0.9,
        "mergeValues": True,
        "alignValue": "center",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    custom = {"lineWidth": 0, "fillOpacity": 85}
    more.setdefault("colour", "thresholds")
    return Panel("state-timeline", title, description, list(queries), width, height, options=options, custom=custom, **more)


def bars(title, description, query, width=8, height=8, **more):
    options = {
        "displayMode": "lcd",
        "valueMode": "color",
        "namePlacement": "auto",
        "showUnfilled": True,
        "sizing": "auto",
        "minVizWidth": 8,
        "minVizHeight": 14,
        "maxVizHeight": 60,
        "orientation": "horizontal",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []},
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    more.setdefault("colour", "thresholds")
    return Panel("bargauge", title, description, [query], width, height, options=options, **more)


def heatmap(title, description, query, width=12, height=8, unit="s"):
    options = {
        "calculate": False,
        "cellGap": 1,
        "color": {
            "mode": "scheme",
            "scheme": "Oranges",
            "fill": "dark-orange",
            "scale": "exponential",
            "exponent": 0.5,
            "steps": 64,
            "reverse": False,
        },
        "yAxis": {"unit": unit, "axisPlacement": "left", "reverse": False},
        "legend": {"show": True},
        "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": False},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
    }
    query.heatmap = True
    return Panel("heatmap", title, description, [query], width, height, unit=unit, options=options)


def table(title, description, query, width=12, height=8, hidden=(), names=None, **more):
    query.instant = True
    names = names or {}
    transformations = [
        {
            "id": "organize",
            "options": {
                "excludeByName": {name: True for name in ("Time", *hidden)},
                "renameByName": names,
                "indexByName": {},
            },
        }
    ]
    options = {"frameIndex": 0, "showHeader": True, "cellHeight": "sm"}
    return Panel("table", title, description, [query], width, height, options=options, transformations=transformations, **more)


def words(pairs):
    """Values that are shown as words: (value, word, colour)."""
    shown = {str(value): {"text": word, "color": colour, "index": at} for at, (value, word, colour) in enumerate(pairs)}
    return [{"type": "value", "options": shown}]


# What they become.


def target(query, at, kind):
    made = {
        "datasource": SOURCE,
        "refId": chr(ord("A") + at),
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "editorMode": "code",
        "instant": query.instant,
        "range": not query.instant,
    }
    if query.heatmap:
        made["format"] = "heatmap"
    elif kind == "table":
        made["format"] = "table"
    return made


def panel(described, number, position):
    steps = [{"color": colour, "value": value} for value, colour in described.thresholds]
    defaults = {
        "unit": described.unit,
        "color": {"mode": described.colour},
        "mappings": described.mappings,
        "thresholds": {"mode": "absolute", "steps": steps},
        "custom": described.custom,
        **described.bounds,
    }
    made = {
        "id": number,
        "type": described.kind,
        "title": described.title,
        "description": described.description,
        "datasource": SOURCE,
        "gridPos": position,
        "targets": [target(query, at, described.kind) for at, query in enumerate(described.queries)],
        "options": described.options,
        "fieldConfig": {"defaults": defaults, "overrides": []},
    }
    if described.transformations:
        made["transformations"] = described.transformations
    return made


def laid_out(rows):
    """Panels from left to right and from top to bottom, below a heading for each row that has one."""
    made, y, number = [], 0, 0
    for row in rows:
        if row.title:
            number += 1
            position = {"h": 1, "w": WIDTH, "x": 0, "y": y}
            made.append(
                {"id": number, "type": "row", "title": row.title, "collapsed": False, "gridPos": position, "panels": []}
            )
            y += 1
        x, tallest = 0, 0
        for described in row.panels:
            if x + described.width > WIDTH:
                y, x, tallest = y + tallest, 0, 0
            number += 1
            position = {"h": described.height, "w": described.width, "x": x, "y": y}
            made.append(panel(described, number, position))
            x, tallest = x + described.width, max(tallest, described.height)
        y += tallest
    return made


def variable(name, label, query):
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": SOURCE,
        "query": {"query": query, "refId": "variable"},
        "refresh": 2,
        "sort": 1,
        "multi": False,
        "includeAll": False,
        "hide": 0,
        "skipUrlSync": False,
    }


def as_json(dashboard, others):
    cluster = variable("cluster", "Cluster", 'label_values(up{job="outlive-scheduler"}, cluster)')
    links = [
        {
            "type": "link",
            "title": other.title,
            "url": f"/d/{other.uid}",
            "icon": "dashboard",
            "tooltip": other.description,
            "tags": [],
            "asDropdown": False,
            "targetBlank": False,
            "includeVars": True,
            "keepTime": True,
        }
        for other in others
        if other.uid != dashboard.uid
    ]
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["outlive"],
        "timezone": "browser",
        "editable": False,
        "graphTooltip": 1,
        "schemaVersion": 41,
        "refresh": dashboard.refresh,
        "time": {"from": dashboard.span, "to": "now"},
        "templating": {"list": [cluster, *dashboard.variables]},
        "annotations": {
            "list": [
                {
                    "name": "A new leader",
                    "datasource": SOURCE,
                    "enable": True,
                    "iconColor": "purple",
                    "expr": 'changes(cluster:outlive_term:max{cluster="$cluster"}[10s]) > 0',
                }
            ]
        },
        "links": links,
        "panels": laid_out(dashboard.rows),
    }
