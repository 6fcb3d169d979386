//! An API server of Kubernetes that has the configuration in place of a directory.

use std::fmt::Debug;
use std::pin::Pin;

use anyhow::Result;

use crate::mesh::{self, Edit};
use crate::shape::Shape;

/// Something under way.
pub type Doing<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// Who brings configuration to an API server. How one talks to it is not known here.
pub trait Cluster: Debug {
    /// Has the API server have a mesh as it is before the first edit. `says` is told how many objects are
    /// there.
    ///
    /// # Errors
    /// If it has another mesh, or does not take this one.
    fn load<'a>(&'a self, mesh: Mesh<'a>, says: &'a dyn Fn(usize)) -> Doing<'a>;

    /// Makes a change. What comes after it is the server's time.
    fn apply<'a>(&'a self, edit: &'a Edit) -> Doing<'a>;

    /// Arguments of `navarch serve` that lead it to the API server.
    fn arguments(&self) -> Vec<String>;
}

/// What an API server has of a shape.
pub struct Mesh<'a> {
    /// Two meshes with the same have the same objects.
    pub identity: String,
    /// Objects in YAML, between lines of `---`; a namespace comes before what is in it.
    pub texts: Box<dyn Iterator<Item = String> + 'a>,
    /// What edits replace.
    pub unedited: Vec<Edit>,
}

impl<'a> Mesh<'a> {
    /// That of a shape.
    #[must_use]
    pub fn of(shape: &'a Shape) -> Self {
        let Shape { name: _, services, endpoints, proxies, classes, namespaces, scoped, routes, pods } =
            shape;
        let sizes = [services, endpoints, proxies, classes, namespaces, routes].map(ToString::to_string);
        Mesh {
            identity: format!("{} scoped={scoped} pods={pods}", sizes.join(" ")),
            texts: Box::new(mesh::files(shape).map(|(_, text)| text)),
            unedited: mesh::unedited(shape).collect(),
        }
    }
}
