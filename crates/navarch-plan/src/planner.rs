//! The planner: from a snapshot and a class to the resources of every type.

use std::any::Any;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use navarch_envoy::{ProxyResources, Resource, ResourceSet, XdsType, hosts};
use navarch_model::proxy::{ProxyFacts, ProxyKind};
use navarch_model::{Hashed, Kind, Name, ObjectKey};
use navarch_snapshot::{Part, Scope, Snapshot};
use navarch_translate::Patched;
use navarch_translate::patching::Fates;
use parking_lot::{Mutex, RwLock};

use crate::class::Class;
use crate::composed::{Composed, Planned};
use crate::engine::{Cx, Engine, Gather, Root};
use crate::explain::{Explanation, Reached, explain, reached};
use crate::gather::{gateway, shared, sidecar, waypoint};
use crate::memo::Memo;

/// Plans classes of proxies against the newest snapshot.
pub struct Planner {
    engine: RwLock<Engine>,
}

impl Planner {
    /// A planner that has planned nothing yet.
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        Planner { engine: RwLock::new(Engine::new(snapshot)) }
    }

    /// A planner that has planned nothing yet, with a memo that others may have filled.
    pub fn with_memo(snapshot: Arc<Snapshot>, memo: Arc<Memo>) -> Self {
        Planner { engine: RwLock::new(Engine::with_memo(snapshot, memo)) }
    }

    /// A planner that computes everything for each namespace and with all labels of each client: what sharing
    /// must not change. For tests and self-checks.
    pub fn exact(snapshot: Arc<Snapshot>) -> Self {
        Planner { engine: RwLock::new(Engine::exact(snapshot)) }
    }

    /// Moves to a newer snapshot and returns the parts that changed. Plans that are being made are finished
    /// first.
    pub fn advance(&self, snapshot: Arc<Snapshot>) -> Vec<Part> {
        self.engine.write().advance(snapshot)
    }

    /// Forgets what no plan uses any more, once it is as much as what plans do use: an edit does not pay for
    /// a look at everything.
    pub fn sweep(&self) {
        if self.engine.read().needs_sweep() {
            self.engine.write().sweep();
        }
    }

    /// The class that a proxy belongs to now.
    pub fn classify(&self, facts: &ProxyFacts) -> Class {
        self.class_in(&self.engine.read(), facts)
    }

    fn class_in(&self, engine: &Engine, facts: &ProxyFacts) -> Class {
        let view = engine.snapshot().view();
        if engine.is_exact() { Class::exact(facts, &view) } else { Class::of(facts, &view) }
    }

    /// A plan for a class; nothing is computed before it is asked for its resources.
    pub fn class_plan(&self, class: Arc<Hashed<Class>>) -> ClassPlan {
        plan_in(&self.engine.read(), &class)
    }

    /// The resources of a class at the newest snapshot. The same `Arc` as last time if nothing changed.
    pub fn resources(&self, plan: &ClassPlan) -> Arc<ProxyResources> {
        plan.resources(&self.engine.read())
    }

    /// The resources of many classes, computed on up to `threads` threads, in the order of `plans`.
    pub fn all_resources(&self, plans: &[&ClassPlan], threads: usize) -> Vec<Arc<ProxyResources>> {
        let engine = &*self.engine.read();
        if plans.len() < 2 || threads < 2 {
            return plans.iter().map(|plan| plan.resources(engine)).collect();
        }
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(plan) = plans.get(next.fetch_add(1, Ordering::Relaxed)) {
                plan.resources(engine);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.min(plans.len()) {
                scope.spawn(work);
            }
            work();
        });
        plans.iter().map(|plan| plan.resources(engine)).collect()
    }

    /// Why a resource of a proxy is what it is; `None` if the proxy has no such resource. Asks the gathers
    /// that made it, whose answers are there as long as the proxy's plan is.
    pub fn explain(
        &self,
        facts: &ProxyFacts,
        resources: &ProxyResources,
        ty: XdsType,
        name: &str,
    ) -> Option<Explanation> {
        let engine = self.engine.read();
        let class = Arc::new(Hashed::new(self.class_in(&engine, facts)));
        let plan = plan_in(&engine, &class);
        let patches = match (ty, hosts::routes_of(name)) {
            // They are applied to routes as a whole.
            (XdsType::Vhds, Some(routes)) => {
                plan.patches_of(&engine, XdsType::Rds, routes).of_resource(&hosts::host_of(name))
            }
            _ => plan.patches_of(&engine, ty, name),
        };
        explain(&engine, facts, resources, ty, name, &patches)
    }

    /// The resources of a proxy that an object has to do with, and what it does in each. Looks at
    /// `resources_max` resources at most.
    pub fn reached(
        &self,
        facts: &ProxyFacts,
        resources: &ProxyResources,
        object: &ObjectKey,
        resources_max: usize,
    ) -> Vec<Reached> {
        let engine = self.engine.read();
        let class = Arc::new(Hashed::new(self.class_in(&engine, facts)));
        let plan = plan_in(&engine, &class);
        let patches = |ty| match object.kind {
            Kind::EnvoyFilter => plan.patches_by_name(&engine, ty),
            _ => BTreeMap::new(),
        };
        reached(&engine, facts, resources, object, resources_max, patches)
    }

    /// Looks at the engine: its snapshot, its counters.
    pub fn inspect<T>(&self, look: impl FnOnce(&Engine) -> T) -> T {
        look(&self.engine.read())
    }
}

fn plan_in(engine: &Engine, class: &Arc<Hashed<Class>>) -> ClassPlan {
    ClassPlan {
        roots: roots(engine, class),
        class: class.clone(),
        latest: Mutex::default(),
        fates: Mutex::default(),
    }
}

/// The plan of one class.
pub struct ClassPlan {
    class: Arc<Hashed<Class>>,
    roots: Vec<(XdsType, Box<dyn SetRoot>)>,
    latest: Mutex<Option<Arc<ProxyResources>>>,
    fates: Mutex<Arc<Fates>>,
}

impl ClassPlan {
    /// The class that is planned.
    pub fn class(&self) -> &Arc<Hashed<Class>> {
        &self.class
    }

    /// The resources as they were when they were last asked for.
    pub fn latest(&self) -> Option<Arc<ProxyResources>> {
        self.latest.lock().clone()
    }

    /// What became of the patches of EnvoyFilters, as of when the resources were last asked for. The same
    /// `Arc` as last time if nothing changed.
    pub fn fates(&self) -> Arc<Fates> {
        self.fates.lock().clone()
    }

    fn resources(&self, engine: &Engine) -> Arc<ProxyResources> {
        let mut latest = self.latest.lock();
        if let Some(known) = &*latest
            && self.roots.iter().all(|(_, root)| !root.is_marked())
        {
            return known.clone();
        }
        let sets: Vec<_> = self.roots.iter().map(|(ty, root)| (*ty, root.set(engine))).collect();
        self.sum_fates(engine);
        if let Some(known) = &*latest
            && sets.iter().all(|(ty, set)| known.set(*ty) == set)
        {
            return known.clone();
        }
        let resources = sets
            .into_iter()
            .fold(ProxyResources::new(engine.snapshot().revision()), |made, (ty, set)| made.with(ty, set));
        let resources = Arc::new(resources);
        *latest = Some(resources.clone());
        resources
    }
}

impl ClassPlan {
    fn sum_fates(&self, engine: &Engine) {
        let mut sum = Fates::default();
        for (_, root) in &self.roots {
            sum.sum(&root.fates(engine));
        }
        let mut known = self.fates.lock();
        if **known != sum {
            *known = Arc::new(sum);
        }
    }

    /// What patches did to each resource of a type.
    fn patches_by_name(&self, engine: &Engine, ty: XdsType) -> BTreeMap<Name, Fates> {
        let mut found: BTreeMap<Name, Fates> = BTreeMap::new();
        let mut add = |name: &str, fates: Fates| found.entry(Name::from(name)).or_default().extend(fates);
        let mut look = |output: &(dyn Any + Send + Sync)| {
            if let Some(patched) = output.downcast_ref::<Patched<Arc<Resource>>>() {
                let fates = patched.fates().map(|fates| Fates::clone(fates));
                add(patched.made.name(), fates.unwrap_or_default());
            }
            if let Some(patched) = output.downcast_ref::<Patched<Vec<Arc<Resource>>>>()
                && let Some(fates) = patched.fates()
            {
                patched.made.iter().for_each(|made| add(made.name(), fates.of_resource(made.name())));
            }
        };
        for (_, root) in self.roots.iter().filter(|(of, _)| *of == ty) {
            root.outputs(engine, &mut look);
        }
        found
    }

    /// What patches did to one resource.
    pub(crate) fn patches_of(&self, engine: &Engine, ty: XdsType, name: &str) -> Fates {
        let mut found = Fates::default();
        let mut look = |output: &(dyn Any + Send + Sync)| {
            if let Some(patched) = output.downcast_ref::<Patched<Arc<Resource>>>()
                && &**patched.made.name() == name
            {
                found.extend(patched.fates().map(|fates| Fates::clone(fates)).unwrap_or_default());
            }
            if let Some(patched) = output.downcast_ref::<Patched<Vec<Arc<Resource>>>>()
                && patched.made.iter().any(|made| &**made.name() == name)
            {
                found.extend(patched.fates().map(|fates| fates.of_resource(name)).unwrap_or_default());
            }
        };
        for (_, root) in self.roots.iter().filter(|(of, _)| *of == ty) {
            root.outputs(engine, &mut look);
        }
        found
    }
}

trait SetRoot: Send + Sync {
    fn set(&self, engine: &Engine) -> ResourceSet;
    fn fates(&self, engine: &Engine) -> Arc<Fates>;
    fn outputs(&self, engine: &Engine, look: &mut dyn FnMut(&(dyn Any + Send + Sync)));
    fn is_marked(&self) -> bool;
}

impl<T: TypePlan> SetRoot for Root<PlanOf<T>> {
    fn set(&self, engine: &Engine) -> ResourceSet {
        self.get(engine).0.set().clone()
    }

    fn fates(&self, engine: &Engine) -> Arc<Fates> {
        Root::fates(self, engine)
    }

    fn outputs(&self, engine: &Engine, look: &mut dyn FnMut(&(dyn Any + Send + Sync))) {
        engine.outputs(self, look);
    }

    fn is_marked(&self) -> bool {
        Root::is_marked(self)
    }
}

/// How the resources of one type are gathered.
trait TypePlan: Send + Sync + 'static {
    const NAME: &'static str;
    fn composed(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, scope: &Arc<Hashed<Scope>>) -> Composed;
}

/// The resources of one type for a class.
struct PlanOf<T>(PhantomData<T>);

impl<T: TypePlan> PlanOf<T> {
    fn plan(class: &Arc<Hashed<Class>>, cx: &Cx<'_>, previous: Option<&Planned>) -> Planned {
        let scope = cx.gather::<ScopeOf>(class);
        Planned::new(T::composed(cx, class, &scope), cx.layers(), previous)
    }
}

impl<T: TypePlan> Gather for PlanOf<T> {
    const NAME: &'static str = T::NAME;
    type Key = Arc<Hashed<Class>>;
    type Output = Planned;

    fn run(class: &Self::Key, cx: &Cx<'_>) -> Planned {
        Self::plan(class, cx, None)
    }

    fn rerun(class: &Self::Key, cx: &Cx<'_>, previous: &Planned) -> Planned {
        Self::plan(class, cx, Some(previous))
    }
}

/// What a class can see.
struct ScopeOf;

impl Gather for ScopeOf {
    const NAME: &'static str = "scope.resolved";
    type Key = Arc<Hashed<Class>>;
    type Output = Hashed<Scope>;

    fn run(class: &Self::Key, cx: &Cx<'_>) -> Hashed<Scope> {
        Hashed::new(Scope::resolve(cx.view(), &class.facts, class.labels()))
    }
}

/// What is planned: by the role of the proxy, the types of resources and their gathers. A type is added by a
/// line here and its gather.
macro_rules! planned_types {
    ($($role:ident { $($xds:ident $name:literal $composed:path;)* })*) => {
        fn roots(engine: &Engine, class: &Arc<Hashed<Class>>) -> Vec<(XdsType, Box<dyn SetRoot>)> {
            match class.facts.kind {
                $(ProxyKind::$role => vec![$({
                    struct OfRole;

                    impl TypePlan for OfRole {
                        const NAME: &'static str = $name;

                        fn composed(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, scope: &Arc<Hashed<Scope>>) -> Composed {
                            $composed(cx, class, scope)
                        }
                    }

                    (XdsType::$xds, Box::new(engine.root::<PlanOf<OfRole>>(class)))
                }),*],)*
            }
        }
    };
}

planned_types! {
    Sidecar {
        Cds "plan.sidecar_clusters" sidecar::clusters::clusters;
        Eds "plan.sidecar_endpoints" sidecar::endpoints::endpoints;
        Lds "plan.sidecar_listeners" sidecar::listeners::listeners;
        Rds "plan.sidecar_routes" sidecar::routes::routes;
        Vhds "plan.sidecar_hosts" sidecar::routes::hosts;
        Sds "plan.sidecar_secrets" sidecar::secrets::secrets;
        Ecds "plan.sidecar_extensions" shared::extensions::extensions;
        Bootstrap "plan.sidecar_bootstrap" shared::bootstrap::bootstrap;
        Nds "plan.sidecar_names" shared::name_table::names;
    }
    Router {
        Cds "plan.gateway_clusters" gateway::clusters::clusters;
        Eds "plan.gateway_endpoints" gateway::endpoints::endpoints;
        Lds "plan.gateway_listeners" gateway::listeners::listeners;
        Rds "plan.gateway_routes" gateway::routes::routes;
        Vhds "plan.gateway_hosts" gateway::routes::hosts;
        Sds "plan.gateway_secrets" gateway::secrets::secrets;
        Ecds "plan.gateway_extensions" shared::extensions::extensions;
        Bootstrap "plan.gateway_bootstrap" shared::bootstrap::bootstrap;
        Nds "plan.gateway_names" shared::name_table::names;
    }
    Waypoint {
        Cds "plan.waypoint_clusters" waypoint::clusters;
        Eds "plan.waypoint_endpoints" waypoint::endpoints;
        Sds "plan.waypoint_secrets" waypoint::secrets;
        Ecds "plan.waypoint_extensions" shared::extensions::extensions;
        Bootstrap "plan.waypoint_bootstrap" shared::bootstrap::bootstrap;
    }
    Ztunnel {}
}
