//! A board of Grafana that shows how the control plane is: whether proxies follow, and what holds them back.

use serde_json::{Value, json};

/// A graph: its title, the unit of Grafana, and queries with what their lines are called.
struct Panel {
    title: &'static str,
    unit: &'static str,
    queries: &'static [(&'static str, &'static str)],
}

const PANELS: &[Panel] = &[
    Panel {
        title: "Connected proxies",
        unit: "short",
        queries: &[("sum by (version) (pilot_xds)", "Envoy {{version}}")],
    },
    Panel {
        title: "From a change to a proxy's acknowledgement",
        unit: "s",
        queries: &[
            ("histogram_quantile(0.5, sum by (le) (rate(pilot_proxy_convergence_time_bucket[5m])))", "P50"),
            ("histogram_quantile(0.99, sum by (le) (rate(pilot_proxy_convergence_time_bucket[5m])))", "P99"),
        ],
    },
    Panel {
        title: "Responses",
        unit: "ops",
        queries: &[("sum by (type) (rate(pilot_xds_pushes[5m]))", "{{type}}")],
    },
    Panel {
        title: "Sent",
        unit: "Bps",
        queries: &[("sum by (type) (rate(navarch_xds_push_bytes_total[5m]))", "{{type}}")],
    },
    Panel {
        title: "Rejected by proxies",
        unit: "short",
        queries: &[("sum by (type) (increase(pilot_total_xds_rejects[5m]))", "{{type}}")],
    },
    Panel {
        title: "Findings in the configuration",
        unit: "short",
        queries: &[("max by (severity) (navarch_findings)", "{{severity}}")],
    },
    Panel {
        title: "Proxies with removals that are held",
        unit: "short",
        queries: &[("sum(navarch_removals_held)", "proxies")],
    },
    Panel {
        title: "From a change to its revision, and to its plan",
        unit: "s",
        queries: &[
            (
                "histogram_quantile(0.99, sum by (le) (rate(navarch_commit_seconds_bucket[5m])))",
                "revision, P99",
            ),
            ("histogram_quantile(0.99, sum by (le) (rate(navarch_plan_seconds_bucket[5m])))", "plan, P99"),
        ],
    },
    Panel {
        title: "Sources that are not heard, for so long",
        unit: "s",
        queries: &[("max by (source) (navarch_source_unheard_seconds)", "{{source}}")],
    },
    Panel {
        title: "Other clusters",
        unit: "short",
        queries: &[("max by (cluster, state) (navarch_remote_clusters)", "{{cluster}}: {{state}}")],
    },
    Panel {
        title: "Written to the cluster",
        unit: "short",
        queries: &[
            ("sum(navarch_statuses_pending)", "statuses that are due"),
            ("sum(navarch_gateways_pending)", "gateways that are due"),
            ("sum by (result) (increase(navarch_status_writes_total[5m]))", "statuses: {{result}}"),
        ],
    },
    Panel {
        title: "Replicas that write (one should)",
        unit: "short",
        queries: &[("sum(navarch_writer)", "replicas")],
    },
    Panel {
        title: "Webhooks",
        unit: "ops",
        queries: &[(
            "sum by (webhook, answer) (rate(navarch_webhook_answers_total[5m]))",
            "{{webhook}}: {{answer}}",
        )],
    },
    Panel {
        title: "Processor",
        unit: "short",
        queries: &[("rate(process_cpu_seconds_total{job=~\"navarch.*\"}[5m])", "{{pod}}")],
    },
    Panel {
        title: "Memory",
        unit: "bytes",
        queries: &[("process_resident_memory_bytes{job=~\"navarch.*\"}", "{{pod}}")],
    },
];

/// How wide and high a panel is; a row of Grafana is 24 wide.
const SIZE: (usize, usize) = (12, 8);

/// The board, as Grafana has it in files.
pub fn board() -> Value {
    let source = json!({"type": "prometheus", "uid": "${source}"});
    let panels = PANELS.iter().enumerate().map(|(index, panel)| {
        let (width, height) = SIZE;
        let targets = panel.queries.iter().zip('A'..).map(|((query, legend), id)| {
            json!({"refId": id.to_string(), "datasource": source, "expr": query, "legendFormat": legend})
        });
        json!({
            "id": index + 1,
            "type": "timeseries",
            "title": panel.title,
            "datasource": source,
            "gridPos": {"x": index % 2 * width, "y": index / 2 * height, "w": width, "h": height},
            "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
            "targets": targets.collect::<Vec<_>>(),
        })
    });
    json!({
        "uid": "navarch",
        "title": "navarch",
        "schemaVersion": 39,
        "editable": true,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [{"name": "source", "type": "datasource", "query": "prometheus"}]},
        "panels": panels.collect::<Vec<_>>(),
    })
}
