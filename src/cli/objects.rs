//! Typed reading and writing of our kinds, for the commands that know what they speak of. Writes go through
//! [`Session::ask`], so that the server's warnings are seen.

use kube::{
    Api, Resource,
    api::{ListParams, ObjectList, Patch, PatchParams, PostParams},
    core::{NamespaceResourceScope, Request, params::GetParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{CliError, FIELD_MANAGER, error::while_, session::Session, target::check_name};

/// A kind of ours.
pub trait Ours: Resource<DynamicType = ()> + Serialize + DeserializeOwned {}

impl<K: Resource<DynamicType = ()> + Serialize + DeserializeOwned> Ours for K {}

/// `handoff.gaia.dev/NAME`, as everywhere.
pub fn label<K: Ours>(name: &str) -> String {
    format!("{}.{}/{name}", K::kind(&()).to_lowercase(), K::group(&()))
}

impl Session {
    /// The objects of one of our kinds in a namespace.
    pub fn within<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client(), namespace)
    }

    pub async fn get<K: Ours>(&self, namespace: Option<&str>, name: &str) -> Result<K, CliError> {
        let doing = format!("cannot get {}", label::<K>(name));
        check_name("an object", name)?;
        self.typed(requests::<K>(namespace)?.get(name, &GetParams::default()), doing).await
    }

    /// All of them, or those with these labels.
    pub async fn list<K: Ours + Clone>(
        &self,
        namespace: Option<&str>,
        selector: Option<&str>,
    ) -> Result<Vec<K>, CliError> {
        let params = ListParams { label_selector: selector.map(str::to_owned), ..ListParams::default() };
        let doing = format!("cannot list {}", K::plural(&()));
        let list: ObjectList<K> = self.typed(requests::<K>(namespace)?.list(&params), doing).await?;
        Ok(list.items)
    }

    pub async fn create<K: Ours>(&self, namespace: &str, object: &K) -> Result<K, CliError> {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let body = serde_json::to_vec(object).map_err(|e| CliError::Failed(e.to_string()))?;
        let doing = format!("cannot create a {}", K::kind(&()));
        self.typed(requests::<K>(Some(namespace))?.create(&params, body), doing).await
    }

    /// A merge patch: what is named is set, the rest stays.
    pub async fn merge<K: Ours>(&self, namespace: Option<&str>, name: &str, patch: Value) -> Result<K, CliError> {
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let doing = format!("cannot change {}", label::<K>(name));
        check_name("an object", name)?;
        self.typed(requests::<K>(namespace)?.patch(name, &params, &Patch::Merge(patch)), doing).await
    }

    /// Puts one field of the spec into the place of another, unless the spec has changed meanwhile.
    pub async fn replace<K: Ours>(&self, object: &K, path: &str, value: Value) -> Result<K, CliError> {
        let (meta, name) = (object.meta(), object.meta().name.as_deref().unwrap_or_default());
        let patch = json!([
            {"op": "test", "path": "/metadata/generation", "value": meta.generation},
            {"op": "replace", "path": path, "value": value},
        ]);
        check_name("an object", name)?;
        let url = format!("{}/{name}?fieldManager={FIELD_MANAGER}", K::url_path(&(), meta.namespace.as_deref()));
        let request = axum::http::Request::patch(url).header("content-type", "application/json-patch+json");
        let request = request.body(patch.to_string().into_bytes()).map_err(kube::core::request::Error::BuildRequest);
        self.typed(request, format!("cannot change {}", label::<K>(name))).await
    }

    async fn typed<T: DeserializeOwned>(
        &self,
        request: Result<axum::http::Request<Vec<u8>>, kube::core::request::Error>,
        doing: String,
    ) -> Result<T, CliError> {
        let request = request.map_err(|e| CliError::Usage(format!("{doing}: {e}")))?;
        let answer = self.ask(request).await.map_err(while_(doing.clone()))?;
        serde_json::from_value(answer)
            .map_err(|e| CliError::Failed(format!("{doing}: the server's answer is odd: {e}")))
    }
}

fn requests<K: Ours>(namespace: Option<&str>) -> Result<Request, CliError> {
    if let Some(namespace) = namespace {
        check_name("a namespace", namespace)?;
    }
    Ok(Request::new(K::url_path(&(), namespace)))
}
