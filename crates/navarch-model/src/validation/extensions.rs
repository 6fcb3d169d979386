//! Telemetry, WasmPlugin, TrafficExtension, ProxyConfig: kinds that select workloads and configure one thing.

use std::collections::BTreeSet;

use super::checks::{self, missing, policy_targets, port};
use super::{Report, Validate};
use crate::extensions::{
    EnvValueSource, EnvVar, FilterConfig, TrafficExtension, TrafficSelector, VmConfig, WasmPlugin,
};
use crate::finding::Code;
use crate::networking::ProxyConfig;
use crate::telemetry::{
    CustomTag, MetricMatch, MetricsOverrides, ProviderRef, TagOverrideOperation, Telemetry,
};

/// The longest Lua script.
const LONGEST_SCRIPT: usize = 64 << 10;

impl Validate for ProxyConfig {
    fn validate(&self, report: &mut Report<'_>) {
        policy_targets(report, self.selector.as_ref(), None, &[]);
        checks::not_negative(report, "concurrency", self.concurrency.unwrap_or(0));
    }
}

impl Validate for Telemetry {
    fn validate(&self, report: &mut Report<'_>) {
        policy_targets(report, self.selector.as_ref(), self.target_ref.as_ref(), &self.target_refs);
        if self.tracing.len() > 1 {
            report.within("tracing", |report| {
                report.warning(Code::NoEffect, "only the first item is used", "keep one item");
            });
        }
        report.each("tracing", &self.tracing, |report, tracing| {
            if tracing.providers.len() > 1 {
                report.within("providers", |report| {
                    report.warning(Code::NoEffect, "only the first provider is used", "keep one provider");
                });
            }
            providers(report, &tracing.providers);
            for (name, tag) in &tracing.custom_tags {
                report.within_key("customTags", name, |report| {
                    if name.is_empty() {
                        report.error(Code::MissingField, "the tag has no name", "");
                    }
                    let (field, value) = match tag {
                        CustomTag::Literal(literal) => ("literal.value", &literal.value),
                        CustomTag::Header(header) => ("header.name", &header.name),
                        CustomTag::Environment(variable) => ("environment.name", &variable.name),
                        CustomTag::Formatter(formatter) => ("formatter.value", &formatter.value),
                    };
                    if value.is_empty() {
                        missing(report, field, "say what the tag's value is");
                    }
                });
            }
        });
        report.each("metrics", &self.metrics, |report, metrics| {
            providers(report, &metrics.providers);
            report.each("overrides", &metrics.overrides, metric_override);
        });
        report.each("accessLogging", &self.access_logging, |report, logging| {
            providers(report, &logging.providers)
        });
    }
}

fn providers(report: &mut Report<'_>, providers: &[ProviderRef]) {
    report.each("providers", providers, |report, provider| {
        if provider.name.is_empty() {
            missing(report, "name", "name an extension provider of the mesh settings");
        }
    });
}

fn metric_override(report: &mut Report<'_>, metric: &MetricsOverrides) {
    if let Some(MetricMatch::CustomMetric(name)) =
        metric.match_.as_ref().and_then(|rule| rule.metric_match.as_ref())
        && name.is_empty()
    {
        missing(report, "match.customMetric", "name the metric");
    }
    for (name, tag) in &metric.tag_overrides {
        report.within_key("tagOverrides", name, |report| match tag.operation {
            TagOverrideOperation::Upsert if tag.value.is_empty() => {
                missing(report, "value", "UPSERT needs an expression");
            }
            TagOverrideOperation::Remove if !tag.value.is_empty() => report.within("value", |report| {
                report.error(Code::ExclusiveFields, "REMOVE takes no value", "remove value, or use UPSERT");
            }),
            _ => {}
        });
    }
}

impl Validate for WasmPlugin {
    fn validate(&self, report: &mut Report<'_>) {
        policy_targets(report, self.selector.as_ref(), self.target_ref.as_ref(), &self.target_refs);
        let module = Module {
            url: &self.url,
            sha256: &self.sha256,
            image_pull_secret: &self.image_pull_secret,
            plugin_name: &self.plugin_name,
            vm_config: self.vm_config.as_ref(),
        };
        wasm_module(report, &module);
        report.each("match", &self.match_, traffic_selector);
    }
}

impl Validate for TrafficExtension {
    fn validate(&self, report: &mut Report<'_>) {
        policy_targets(report, self.selector.as_ref(), None, &self.target_refs);
        match &self.filter_config {
            None => {
                let message = "the extension has no code";
                report.error(Code::MissingField, message, "set one of wasm, lua");
            }
            Some(FilterConfig::Wasm(wasm)) => report.within("wasm", |report| {
                let module = Module {
                    url: &wasm.url,
                    sha256: &wasm.sha256,
                    image_pull_secret: &wasm.image_pull_secret,
                    plugin_name: &wasm.plugin_name,
                    vm_config: wasm.vm_config.as_ref(),
                };
                wasm_module(report, &module);
            }),
            Some(FilterConfig::Lua(lua)) => {
                if lua.inline_code.is_empty() {
                    report.within("lua.inlineCode", |report| {
                        report.error(Code::InvalidExtension, "there is no script", "write the Lua code here");
                    });
                } else if lua.inline_code.len() > LONGEST_SCRIPT {
                    report.within("lua.inlineCode", |report| {
                        let message = format!("the script has {} bytes", lua.inline_code.len());
                        report.error(Code::InvalidExtension, message, "the limit is 64 KiB");
                    });
                }
            }
        }
        report.each("match", &self.match_, traffic_selector);
    }
}

fn traffic_selector(report: &mut Report<'_>, selector: &TrafficSelector) {
    report.each("ports", &selector.ports, |report, selector| port(report, "number", selector.number));
}

/// What WasmPlugin and TrafficExtension say about a module.
struct Module<'a> {
    url: &'a str,
    sha256: &'a str,
    image_pull_secret: &'a str,
    plugin_name: &'a str,
    vm_config: Option<&'a VmConfig>,
}

fn wasm_module(report: &mut Report<'_>, module: &Module<'_>) {
    if module.url.is_empty() {
        missing(report, "url", "say where the module is: oci://, https://, http:// or file://");
    } else {
        let scheme = module.url.split_once("://").map_or("oci", |(scheme, _)| scheme);
        let strange = module.url.chars().any(|c| c.is_whitespace() || c.is_control())
            || module.url.starts_with(['#', '?'])
            || !escapes_are_valid(module.url);
        if !matches!(scheme, "oci" | "file" | "http" | "https") || strange {
            report.within("url", |report| {
                let message = format!("{:?} is not the URL of a module", module.url);
                report.error(Code::InvalidUrl, message, "use oci://, https://, http:// or file://");
            });
        }
    }
    let hexadecimal = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !module.sha256.is_empty() && (module.sha256.len() != 64 || !hexadecimal(module.sha256)) {
        report.within("sha256", |report| {
            let message = "is not a SHA-256 checksum";
            report.error(Code::InvalidValue, message, "write 64 lower-case hexadecimal digits");
        });
    }
    for (field, text, limit) in
        [("imagePullSecret", module.image_pull_secret, 253), ("pluginName", module.plugin_name, 256)]
    {
        if text.len() > limit {
            report.within(field, |report| {
                let message = format!("has {} characters", text.len());
                report.error(Code::OutOfRange, message, format!("the limit is {limit}"));
            });
        }
    }
    if let Some(vm) = module.vm_config {
        report.within("vmConfig", |report| {
            let mut names = BTreeSet::new();
            report.each("env", &vm.env, |report, variable| {
                environment(report, variable);
                if !variable.name.is_empty() && !names.insert(variable.name.as_str()) {
                    report.within("name", |report| {
                        let message = format!("the variable {:?} is there twice", variable.name);
                        report.error(Code::DuplicateItem, message, "remove one of the two");
                    });
                }
            });
        });
    }
}

/// Whether every `%` of a URL is followed by two hexadecimal digits (RFC 3986, section 2.1).
fn escapes_are_valid(url: &str) -> bool {
    url.split('%').skip(1).all(|rest| {
        let mut digits = rest.bytes();
        (0..2).all(|_| digits.next().is_some_and(|digit| digit.is_ascii_hexdigit()))
    })
}

fn environment(report: &mut Report<'_>, variable: &EnvVar) {
    if variable.name.is_empty() {
        missing(report, "name", "name the variable");
    } else if variable.name.len() > 256 {
        report.within("name", |report| {
            report.error(
                Code::OutOfRange,
                format!("has {} characters", variable.name.len()),
                "the limit is 256",
            );
        });
    }
    if variable.value_from != EnvValueSource::Inline && !variable.value.is_empty() {
        report.within("value", |report| {
            let message = "a variable of the host has no value of its own";
            report.error(Code::ExclusiveFields, message, "remove value, or use valueFrom: INLINE");
        });
    }
}
