//! EnvoyFilter on listeners: their filter chains, network filters, HTTP filters and listener filters.

use std::sync::Arc;

use navarch_envoy::any::unpack;
use navarch_envoy::dynamic::{self, Lists, merge_any};
use navarch_envoy::json::from_json_lenient;
use navarch_envoy::proto::envoy::config::core::v3::{address, socket_address, transport_socket};
use navarch_envoy::proto::envoy::config::listener::v3::{
    Filter, FilterChain, Listener, ListenerFilter, filter, listener_filter,
};
use navarch_envoy::proto::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, http_filter,
};
use navarch_envoy::{Any, Resource};
use navarch_model::networking::{
    ApplyTo, EnvoyConfigObjectPatch, ListenerMatch, ObjectTypes, PatchContext, PatchOperation,
};
use navarch_model::{Hashed, Origin};
use prost::{Message, Name};

use crate::encoded::Encoded;
use crate::filters::network::network_filter;
use crate::guard::{self, Contribution};
use crate::http_connection_manager as hcm;
use crate::listeners::{VIRTUAL_INBOUND, VIRTUAL_OUTBOUND, encode};
use crate::patching::{Fates, Patched, Reach, Trace};
use crate::pure::{Pure, Sealed};

/// The patches of one direction, in the order in which they are made.
pub type ListenerPatches = Arc<Hashed<Vec<ListenerPatch>>>;

/// A change to listeners.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenerPatch {
    pub origin: Origin,
    pub context: PatchContext,
    /// `None` matches every listener.
    matches: Option<ListenerMatch>,
    operation: PatchOperation,
    value: PatchValue,
}

/// What is changed, and the value that changes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum PatchValue {
    Listener(Encoded<Listener>),
    ListenerFilter(Encoded<ListenerFilter>),
    FilterChain(Encoded<FilterChain>),
    NetworkFilter(Encoded<Filter>),
    HttpFilter(Encoded<HttpFilter>),
}

impl Contribution for ListenerPatch {
    fn origin(&self) -> &Origin {
        &self.origin
    }
}

impl ListenerPatch {
    /// Reads a patch; nothing if it is not for listeners, or its value has another type (validation has said
    /// so).
    pub fn parse(origin: Origin, patch: &EnvoyConfigObjectPatch) -> Option<Self> {
        let change = patch.patch.as_ref()?;
        let json = change.value.as_ref().map(|value| value.to_serde());
        let value = match patch.apply_to {
            ApplyTo::Listener => PatchValue::Listener(read(json.as_ref())?),
            ApplyTo::ListenerFilter => PatchValue::ListenerFilter(read(json.as_ref())?),
            ApplyTo::FilterChain => PatchValue::FilterChain(read(json.as_ref())?),
            ApplyTo::NetworkFilter => PatchValue::NetworkFilter(read(json.as_ref())?),
            ApplyTo::HttpFilter => PatchValue::HttpFilter(read(json.as_ref())?),
            _ => return None,
        };
        let matches = patch.match_.as_ref();
        Some(ListenerPatch {
            origin,
            context: matches.map_or(PatchContext::Any, |matches| matches.context),
            matches: matches.and_then(|matches| match &matches.object_types {
                Some(ObjectTypes::Listener(listener)) => Some(listener.clone()),
                _ => None,
            }),
            operation: change.operation,
            value,
        })
    }

    /// Whether the patch is for a direction.
    pub fn is_for(&self, context: PatchContext) -> bool {
        self.context == PatchContext::Any || self.context == context
    }

    /// A listener that the patch adds in a direction. Without a stated context it is added once, not for both
    /// directions of a sidecar.
    pub fn added(&self, context: PatchContext) -> Option<AddedListenerInput> {
        let once = self.context != PatchContext::Any || context != PatchContext::SidecarInbound;
        match &self.value {
            PatchValue::Listener(listener) if self.operation == PatchOperation::Add => {
                let is_one = once && !listener.name.is_empty();
                is_one.then(|| AddedListenerInput { origin: self.origin.clone(), listener: listener.clone() })
            }
            _ => None,
        }
    }

    fn merges(&self) -> Option<Lists> {
        match self.operation {
            PatchOperation::Merge => Some(Lists::Append),
            PatchOperation::MergeAndReplaceList => Some(Lists::Replace),
            _ => None,
        }
    }
}

fn read<M: Message + Name + Default>(json: Option<&serde_json::Value>) -> Option<Encoded<M>> {
    let Some(json) = json else { return Some(Encoded::new(M::default())) };
    let (message, _) = from_json_lenient(&M::full_name(), json).ok()?;
    M::decode(dynamic::encode(&message)).ok().map(Encoded::new)
}

/// A listener encoded, and what became of the patches.
pub type PatchedListener = Patched<Arc<Resource>>;

/// The key of [`AddedListener`].
#[derive(Clone, Debug, Hash)]
pub struct AddedListenerInput {
    origin: Origin,
    listener: Encoded<Listener>,
}

/// Makes a listener that an EnvoyFilter adds; other patches do not see it. One that Envoy would refuse has no
/// name: it is left out of what is sent.
pub struct AddedListener;

impl Sealed for AddedListener {}

impl Pure for AddedListener {
    const NAME: &'static str = "listeners.added";
    type Input = AddedListenerInput;
    type Output = PatchedListener;

    fn run(input: &AddedListenerInput) -> PatchedListener {
        let AddedListenerInput { origin, listener } = input;
        let trace = Trace::default();
        trace.did(origin, "adds the listener");
        let mut fates = trace.into_fates();
        let refusal = guard::refused(&format!("listener {}", listener.name), &**listener);
        let made = if refusal.is_some() { encode(&Listener::default()) } else { encode(listener) };
        if let Some(refusal) = refusal {
            fates.refuse(origin, refusal);
        }
        Patched::new(Arc::new(made), fates)
    }

    fn fates(output: &PatchedListener) -> Option<&Arc<Fates>> {
        output.fates()
    }
}

/// Encodes a listener after all patches but those that would make Envoy refuse it. If one of them removes it,
/// the resource has no name: it is left out of what is sent.
pub fn encode_patched(listener: Listener, patches: &[ListenerPatch]) -> PatchedListener {
    if patches.is_empty() {
        return Patched::new(Arc::new(encode(&listener)), Fates::default());
    }
    let patches: Vec<&ListenerPatch> = patches.iter().collect();
    let name = format!("listener {}", listener.name);
    let (patched, fates) =
        guard::accepted(&name, &patches, |patches, trace| apply(listener.clone(), patches, trace));
    Patched::new(Arc::new(encode(&patched.unwrap_or_default())), fates)
}

/// The listener after all patches; nothing if one of them removes it.
pub fn apply(mut listener: Listener, patches: &[&ListenerPatch], trace: &Trace) -> Option<Listener> {
    for patch in patches {
        let PatchValue::Listener(value) = &patch.value else { continue };
        if !matches_listener(&listener, patch, true) {
            continue;
        }
        if patch.operation == PatchOperation::Remove {
            trace.did(&patch.origin, "removes the listener");
            return None;
        }
        if let Some(lists) = patch.merges() {
            trace.did(&patch.origin, "changes the listener");
            listener = merged(&listener, &**value, lists).unwrap_or(listener);
        }
    }
    for patch in patches.iter().filter(|patch| matches_listener(&listener, patch, false)) {
        trace.reach(&patch.origin, Reach::Resource);
    }
    patch_listener_filters(&mut listener, patches, trace);
    patch_filter_chains(&mut listener, patches, trace);
    Some(listener)
}

fn merged<M: Message + Name + Default>(base: &M, change: &M, lists: Lists) -> Option<M> {
    let mut merged = dynamic::from_typed(base).ok()?;
    dynamic::merge(&mut merged, &dynamic::from_typed(change).ok()?, lists).ok()?;
    M::decode(dynamic::encode(&merged)).ok()
}

/// Something in a list whose items patches add, replace and remove by name.
trait Named: Clone {
    /// What it is called in explanations.
    const WORD: &'static str;

    fn name(&self) -> &str;
}

impl Named for ListenerFilter {
    const WORD: &'static str = "listener filter";

    fn name(&self) -> &str {
        &self.name
    }
}

impl Named for Filter {
    const WORD: &'static str = "network filter";

    fn name(&self) -> &str {
        &self.name
    }
}

impl Named for HttpFilter {
    const WORD: &'static str = "HTTP filter";

    fn name(&self) -> &str {
        &self.name
    }
}

/// Adds, replaces or removes an item. `at` is the name that the patch works next to; without one, an item
/// that is to be inserted before goes to the front, one that is to be inserted after to the end, and nothing
/// is replaced or removed. Says what was done.
fn edit_list<T: Named>(
    list: &mut Vec<T>,
    operation: PatchOperation,
    at: Option<&str>,
    value: &T,
) -> Option<String> {
    let position = at.map(|name| list.iter().position(|item| item.name() == name));
    let adds = || Some(format!("adds the {} {}", T::WORD, value.name()));
    match (operation, position) {
        (PatchOperation::Add, _) | (PatchOperation::InsertAfter, None) => {
            list.push(value.clone());
            adds()
        }
        (PatchOperation::InsertFirst, _) | (PatchOperation::InsertBefore, None) => {
            list.insert(0, value.clone());
            adds()
        }
        (PatchOperation::InsertBefore, Some(Some(index))) => {
            list.insert(index, value.clone());
            adds()
        }
        (PatchOperation::InsertAfter, Some(Some(index))) => {
            list.insert(index + 1, value.clone());
            adds()
        }
        (PatchOperation::Replace, Some(Some(index))) => {
            *list.get_mut(index)? = value.clone();
            Some(format!("replaces the {} {}", T::WORD, at.unwrap_or_default()))
        }
        (PatchOperation::Remove, Some(Some(_))) => {
            list.retain(|item| Some(item.name()) != at);
            Some(format!("removes the {} {}", T::WORD, at.unwrap_or_default()))
        }
        _ => None,
    }
}

/// Records what was done in a part of the listener.
fn record(trace: &Trace, patch: &ListenerPatch, done: Option<String>, chain: Option<&FilterChain>) {
    match (done, chain.map(|chain| chain.name.as_str()).filter(|name| !name.is_empty())) {
        (Some(done), Some(chain)) => trace.did(&patch.origin, format!("{done} in the filter chain {chain}")),
        (Some(done), None) => trace.did(&patch.origin, done),
        (None, _) => {}
    }
}

fn patch_listener_filters(listener: &mut Listener, patches: &[&ListenerPatch], trace: &Trace) {
    for patch in patches {
        let PatchValue::ListenerFilter(value) = &patch.value else { continue };
        if !matches_listener(listener, patch, false) {
            continue;
        }
        let at = patch.matches.as_ref().map(|m| m.listener_filter.as_str()).filter(|name| !name.is_empty());
        if patch.operation != PatchOperation::Merge {
            let done = edit_list(&mut listener.listener_filters, patch.operation, at, &**value);
            record(trace, patch, done, None);
            continue;
        }
        let wanted = listener.listener_filters.iter_mut().filter(|_| at.is_some());
        for filter in wanted {
            if let (
                Some(listener_filter::ConfigType::TypedConfig(base)),
                Some(listener_filter::ConfigType::TypedConfig(change)),
            ) = (&filter.config_type, &value.config_type)
            {
                let config = merged_any(base, change);
                record(trace, patch, Some(format!("changes the listener filter {}", filter.name)), None);
                filter.config_type = Some(listener_filter::ConfigType::TypedConfig(config));
            }
        }
    }
}

/// A configuration with a change of the same type merged in; unchanged if the types differ.
fn merged_any(base: &Any, change: &Any) -> Any {
    merge_any(base, change, Lists::Append).unwrap_or_else(|_| base.clone())
}

fn patch_filter_chains(listener: &mut Listener, patches: &[&ListenerPatch], trace: &Trace) {
    let chains = std::mem::take(&mut listener.filter_chains);
    let patched = chains
        .into_iter()
        .filter(|chain| !chain.filters.is_empty())
        .filter_map(|chain| patch_filter_chain(listener, chain, patches, trace))
        .collect();
    listener.filter_chains = patched;
    if let Some(chain) = listener.default_filter_chain.take() {
        listener.default_filter_chain = if chain.filters.is_empty() {
            Some(chain)
        } else {
            patch_filter_chain(listener, chain, patches, trace)
        };
    }
    for patch in patches {
        if let PatchValue::FilterChain(value) = &patch.value
            && patch.operation == PatchOperation::Add
            && matches_listener(listener, patch, false)
            && !value.filters.is_empty()
        {
            trace.did(&patch.origin, format!("adds the filter chain {:?}", value.name));
            listener.filter_chains.push(value.to_message());
        }
    }
}

fn patch_filter_chain(
    listener: &Listener,
    mut chain: FilterChain,
    patches: &[&ListenerPatch],
    trace: &Trace,
) -> Option<FilterChain> {
    for patch in patches.iter().filter(|patch| matches_chain(listener, &chain, patch)) {
        trace.reach(&patch.origin, Reach::Chain);
    }
    for patch in patches {
        let PatchValue::FilterChain(value) = &patch.value else { continue };
        if !matches_chain(listener, &chain, patch) {
            continue;
        }
        if patch.operation == PatchOperation::Remove {
            trace.did(&patch.origin, format!("removes the filter chain {:?}", chain.name));
            return None;
        }
        if let Some(lists) = patch.merges() {
            trace.did(&patch.origin, format!("changes the filter chain {:?}", chain.name));
            if !merge_transport_socket(&mut chain, value) {
                chain = merged(&chain, &**value, lists).unwrap_or(chain);
            }
        }
    }
    patch_network_filters(listener, &mut chain, patches, trace);
    Some(chain)
}

/// A change of the transport socket is merged into the socket of the same name; then nothing else of the
/// patch counts. False if the patch changes no socket, or there is none of that name.
fn merge_transport_socket(chain: &mut FilterChain, value: &FilterChain) -> bool {
    use transport_socket::ConfigType::TypedConfig;
    let (Some(socket), Some(change)) = (&mut chain.transport_socket, &value.transport_socket) else {
        return false;
    };
    if socket.name != change.name {
        return false;
    }
    if let (Some(TypedConfig(base)), Some(TypedConfig(change))) = (&socket.config_type, &change.config_type) {
        socket.config_type = Some(TypedConfig(merged_any(base, change)));
    }
    true
}

fn patch_network_filters(
    listener: &Listener,
    chain: &mut FilterChain,
    patches: &[&ListenerPatch],
    trace: &Trace,
) {
    for patch in patches {
        let PatchValue::NetworkFilter(value) = &patch.value else { continue };
        if patch.operation == PatchOperation::Merge || !matches_chain(listener, chain, patch) {
            continue;
        }
        let done = edit_list(&mut chain.filters, patch.operation, wanted_filter(patch), &**value);
        record(trace, patch, done, Some(chain));
    }
    let mut filters = std::mem::take(&mut chain.filters);
    for filter in &mut filters {
        merge_network_filter(listener, chain, filter, patches, trace);
        if filter.name == hcm::NAME {
            patch_http_filters(listener, chain, filter, patches, trace);
        }
    }
    chain.filters = filters;
}

fn merge_network_filter(
    listener: &Listener,
    chain: &FilterChain,
    filter: &mut Filter,
    patches: &[&ListenerPatch],
    trace: &Trace,
) {
    for patch in patches {
        let PatchValue::NetworkFilter(value) = &patch.value else { continue };
        if patch.operation != PatchOperation::Merge
            || !matches_chain(listener, chain, patch)
            || !matches_filter(filter, patch)
        {
            continue;
        }
        let Some(filter::ConfigType::TypedConfig(base)) = &filter.config_type else { continue };
        if let Some(filter::ConfigType::TypedConfig(change)) = &value.config_type {
            filter.config_type = Some(filter::ConfigType::TypedConfig(merged_any(base, change)));
        }
        record(trace, patch, Some(format!("changes the network filter {}", filter.name)), Some(chain));
        if !value.name.is_empty() {
            filter.name.clone_from(&value.name);
        }
    }
}

fn patch_http_filters(
    listener: &Listener,
    chain: &FilterChain,
    filter: &mut Filter,
    patches: &[&ListenerPatch],
    trace: &Trace,
) {
    let wanted: Vec<(&ListenerPatch, &Encoded<HttpFilter>)> = patches
        .iter()
        .filter_map(|patch| match &patch.value {
            PatchValue::HttpFilter(value) => Some((*patch, value)),
            _ => None,
        })
        .filter(|(patch, _)| matches_chain(listener, chain, patch) && matches_filter(filter, patch))
        .collect();
    let Some(filter::ConfigType::TypedConfig(config)) = &filter.config_type else { return };
    let Ok(mut manager) = unpack::<HttpConnectionManager>(config) else { return };
    if wanted.is_empty() {
        return;
    }
    for (patch, value) in &wanted {
        trace.reach(&patch.origin, Reach::Filter);
        if patch.operation != PatchOperation::Merge {
            let filters = &mut manager.http_filters;
            let done = edit_list(filters, patch.operation, wanted_http_filter(patch), &***value);
            record(trace, patch, done, Some(chain));
        }
    }
    for http in &mut manager.http_filters {
        for (patch, value) in wanted.iter().filter(|(patch, _)| patch.operation == PatchOperation::Merge) {
            if wanted_http_filter(patch).is_none_or(|name| name == http.name) {
                let done = Some(format!("changes the HTTP filter {}", http.name));
                record(trace, patch, done, Some(chain));
                merge_http_filter(http, value);
            }
        }
    }
    *filter = network_filter(&filter.name, &manager);
}

fn merge_http_filter(filter: &mut HttpFilter, value: &HttpFilter) {
    let Some(http_filter::ConfigType::TypedConfig(base)) = &filter.config_type else { return };
    if let Some(http_filter::ConfigType::TypedConfig(change)) = &value.config_type {
        filter.config_type = Some(http_filter::ConfigType::TypedConfig(merged_any(base, change)));
    }
    if !value.name.is_empty() {
        filter.name.clone_from(&value.name);
    }
}

/// Whether a patch is for a listener. Of the virtual listeners the port means that of a filter chain, unless
/// the listener itself is changed.
fn matches_listener(listener: &Listener, patch: &ListenerPatch, whole: bool) -> bool {
    let Some(wanted) = &patch.matches else { return true };
    if !wanted.name.is_empty() && wanted.name != listener.name {
        return false;
    }
    if wanted.port_number == 0 || (!whole && is_virtual(listener)) {
        return true;
    }
    port(listener) == Some(wanted.port_number)
}

fn is_virtual(listener: &Listener) -> bool {
    listener.name == VIRTUAL_INBOUND || listener.name == VIRTUAL_OUTBOUND
}

fn port(listener: &Listener) -> Option<u32> {
    match listener.address.as_ref()?.address.as_ref()? {
        address::Address::SocketAddress(socket) => match socket.port_specifier {
            Some(socket_address::PortSpecifier::PortValue(port)) => Some(port),
            _ => None,
        },
        _ => None,
    }
}

/// Whether a patch is for a filter chain of a listener.
fn matches_chain(listener: &Listener, chain: &FilterChain, patch: &ListenerPatch) -> bool {
    if !matches_listener(listener, patch, false) {
        return false;
    }
    let Some(wanted) = &patch.matches else { return true };
    let found = chain.filter_chain_match.as_ref();
    let destination_port = found.and_then(|found| found.destination_port);
    if is_virtual(listener)
        && wanted.port_number != 0
        && destination_port.unwrap_or_default() != wanted.port_number
    {
        return false;
    }
    let Some(wanted) = &wanted.filter_chain else { return true };
    let has_all = |stated: &str, found: Option<&Vec<String>>| {
        stated.is_empty()
            || stated.split(',').all(|item| found.is_some_and(|found| found.iter().any(|f| f == item)))
    };
    (wanted.name.is_empty() || wanted.name == chain.name)
        && (wanted.sni.is_empty() || found.is_some_and(|found| found.server_names.contains(&wanted.sni)))
        && (wanted.transport_protocol.is_empty()
            || found.is_some_and(|found| found.transport_protocol == wanted.transport_protocol))
        && has_all(&wanted.application_protocols, found.map(|found| &found.application_protocols))
        && (wanted.destination_port == 0 || destination_port == Some(wanted.destination_port))
}

/// The name of the network filter that a patch works on or next to.
fn wanted_filter(patch: &ListenerPatch) -> Option<&str> {
    let filter = patch.matches.as_ref()?.filter_chain.as_ref()?.filter.as_ref()?;
    Some(&filter.name)
}

fn matches_filter(filter: &Filter, patch: &ListenerPatch) -> bool {
    wanted_filter(patch).is_none_or(|name| name == filter.name)
}

/// The name of the HTTP filter that a patch works on or next to.
fn wanted_http_filter(patch: &ListenerPatch) -> Option<&str> {
    let filter = patch.matches.as_ref()?.filter_chain.as_ref()?.filter.as_ref()?;
    filter.sub_filter.as_ref().map(|sub| sub.name.as_str())
}
