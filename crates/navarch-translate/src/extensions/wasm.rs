//! The configuration of Wasm modules.

use navarch_envoy::any::any;
use navarch_envoy::proto::envoy::config::core::v3::{
    AsyncDataSource, DataSource, HttpUri, RemoteDataSource, TypedExtensionConfig, async_data_source,
    data_source, http_uri,
};
use navarch_envoy::proto::envoy::extensions::filters::http::wasm::v3::Wasm as HttpWasm;
use navarch_envoy::proto::envoy::extensions::filters::network::wasm::v3::Wasm as NetworkWasm;
use navarch_envoy::proto::envoy::extensions::wasm::v3::{
    EnvironmentVariables, FailurePolicy, PluginConfig, VmConfig, plugin_config,
};
use navarch_envoy::{Any, Resource, XdsType, wkt};
use navarch_model::extensions::{
    EnvValueSource, FailStrategy, FilterConfig, PluginType, PullPolicy, TrafficExtension, WasmConfig,
};
use navarch_model::values::Json;
use navarch_model::{Config, Name};
use prost::Message;

use super::resource_name;
use crate::pure::{Pure, Sealed};
use crate::sds::credential_resource;

const RUNTIME: &str = "envoy.wasm.runtime.v8";
/// Envoy demands a cluster, but the module is fetched by the agent, which puts a file in the place of the
/// URL.
const FETCH_CLUSTER: &str = "_";
const FETCH_TIMEOUT_SECS: u32 = 30;

/// Environment variables that are instructions for the agent.
const PULL_SECRET: &str = "ISTIO_META_WASM_IMAGE_PULL_SECRET";
const PULL_POLICY: &str = "ISTIO_META_WASM_IMAGE_PULL_POLICY";
const RESOURCE_VERSION: &str = "ISTIO_META_WASM_PLUGIN_RESOURCE_VERSION";

/// The key of [`ExtensionResource`].
#[derive(Clone, Debug, Hash)]
pub struct ExtensionResourceInput {
    /// Name of the resource.
    name: String,
    /// `<namespace>.<name>` of the extension.
    plugin: String,
    namespace: Name,
    wasm: WasmConfig,
}

impl ExtensionResourceInput {
    /// What an extension needs a resource for; nothing if it is a script, which goes into the chain as it is.
    pub fn of(config: &Config<TrafficExtension>) -> Option<Self> {
        let Some(FilterConfig::Wasm(wasm)) = &config.spec.filter_config else { return None };
        Some(ExtensionResourceInput {
            name: resource_name(config),
            plugin: format!("{}.{}", config.namespace, config.name),
            namespace: config.namespace.clone(),
            wasm: wasm.clone(),
        })
    }
}

/// The resource of a Wasm extension.
pub struct ExtensionResource;

impl Sealed for ExtensionResource {}

impl Pure for ExtensionResource {
    const NAME: &'static str = "extensions.resource";
    type Input = ExtensionResourceInput;
    type Output = Resource;

    fn run(input: &ExtensionResourceInput) -> Resource {
        let wasm = &input.wasm;
        let plugin = plugin_config(&input.plugin, &input.namespace, wasm);
        let typed_config = if wasm.type_ == PluginType::Network {
            any(&NetworkWasm { config: Some(plugin) })
        } else {
            any(&HttpWasm { config: Some(plugin) })
        };
        let message = TypedExtensionConfig { name: input.name.clone(), typed_config: Some(typed_config) };
        Resource::of(XdsType::Ecds, input.name.as_str(), &message.encode_to_vec())
    }
}

fn plugin_config(name: &str, namespace: &str, wasm: &WasmConfig) -> PluginConfig {
    let vm = vm_config(namespace, wasm);
    let policy = match wasm.fail_strategy {
        FailStrategy::FailClose => FailurePolicy::FailClosed,
        FailStrategy::FailOpen => FailurePolicy::FailOpen,
        FailStrategy::FailReload => FailurePolicy::FailReload,
    };
    PluginConfig {
        name: name.to_owned(),
        root_id: wasm.plugin_name.clone(),
        configuration: Some(configuration(wasm.plugin_config.as_ref())),
        failure_policy: policy as i32,
        vm: Some(plugin_config::Vm::VmConfig(vm)),
        ..PluginConfig::default()
    }
}

/// The module gets its configuration as JSON text.
fn configuration(json: Option<&Json>) -> Any {
    match json {
        Some(Json::Object(fields)) if !fields.is_empty() => {
            let text = Json::Object(fields.clone()).to_serde().to_string();
            Any {
                type_url: format!("{}google.protobuf.StringValue", navarch_envoy::any::TYPE_URL_PREFIX),
                value: text.encode_to_vec().into(),
            }
        }
        _ => Any::default(),
    }
}

fn vm_config(namespace: &str, wasm: &WasmConfig) -> VmConfig {
    let code = code(wasm);
    let mut environment = EnvironmentVariables::default();
    let values = &mut environment.key_values;
    if !wasm.image_pull_secret.is_empty() {
        // Its name only: what it holds is given to whoever proves that it may have it, over SDS.
        let secret = credential_resource(&wasm.image_pull_secret);
        let name = secret.rsplit('/').next().unwrap_or_default();
        values.insert(PULL_SECRET.to_owned(), format!("kubernetes://{namespace}/{name}"));
    }
    match wasm.image_pull_policy {
        PullPolicy::UnspecifiedPolicy => {}
        stated => {
            values.insert(PULL_POLICY.to_owned(), stated.as_str().to_owned());
        }
    }
    // A tag may name another module later; the agent fetches it again when this changes.
    let version = Resource::of(XdsType::Ecds, "", &code.encode_to_vec()).version();
    values.insert(RESOURCE_VERSION.to_owned(), version.to_string());
    for variable in wasm.vm_config.iter().flat_map(|vm| &vm.env) {
        match variable.value_from {
            EnvValueSource::Inline => {
                values.insert(variable.name.clone(), variable.value.clone());
            }
            EnvValueSource::Host => environment.host_env_keys.push(variable.name.clone()),
        }
    }
    VmConfig {
        runtime: RUNTIME.to_owned(),
        code: Some(code),
        environment_variables: Some(environment),
        ..VmConfig::default()
    }
}

/// Where the module is: a file of the proxy, or a URL; without a scheme it is an OCI image.
fn code(wasm: &WasmConfig) -> AsyncDataSource {
    let specifier = if let Some(path) = wasm.url.strip_prefix("file://") {
        async_data_source::Specifier::Local(DataSource {
            specifier: Some(data_source::Specifier::Filename(path.to_owned())),
            ..DataSource::default()
        })
    } else {
        let uri = if wasm.url.contains("://") { wasm.url.clone() } else { format!("oci://{}", wasm.url) };
        async_data_source::Specifier::Remote(RemoteDataSource {
            http_uri: Some(HttpUri {
                uri,
                timeout: Some(wkt::duration_secs(FETCH_TIMEOUT_SECS)),
                http_upstream_type: Some(http_uri::HttpUpstreamType::Cluster(FETCH_CLUSTER.to_owned())),
            }),
            sha256: wasm.sha256.clone(),
            ..RemoteDataSource::default()
        })
    };
    AsyncDataSource { specifier: Some(specifier) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_files_or_urls() {
        let check = |url: &str, expected: &str| {
            let wasm = WasmConfig { url: url.to_owned(), ..WasmConfig::default() };
            let found = match code(&wasm).specifier {
                Some(async_data_source::Specifier::Local(DataSource {
                    specifier: Some(data_source::Specifier::Filename(path)),
                    ..
                })) => path,
                Some(async_data_source::Specifier::Remote(remote)) => {
                    remote.http_uri.map(|uri| uri.uri).unwrap_or_default()
                }
                _ => String::new(),
            };
            assert_eq!(found, expected);
        };
        check("file:///opt/a.wasm", "/opt/a.wasm");
        check("https://files.example.com/a.wasm", "https://files.example.com/a.wasm");
        check("registry.example/a:v1", "oci://registry.example/a:v1");
    }

    #[test]
    fn configuration_is_json_text() {
        let json = Json::from(&serde_json::json!({"b": [1, "two"], "a": {"x": true}}));
        let packed = configuration(Some(&json));
        let text = String::decode(packed.value).expect("a string value");
        assert_eq!(text, r#"{"a":{"x":true},"b":[1,"two"]}"#);
        assert_eq!(configuration(Some(&Json::Object(Default::default()))), Any::default());
    }
}
