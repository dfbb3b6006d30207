//! Data sources (`rest.md` 8).

use copass_types::api::{DataSource, DataSourceList, ListSourcesQuery, RegisterSourceRequest};
use reqwest::Method;

use crate::{Client, Reply, Result, call::Call};

#[allow(clippy::missing_errors_doc, reason = "the module says once how every method fails")]
impl Client {
    /// `POST …/sources`: the answer of a realtime source holds its signing secret, once.
    pub async fn register_source(&self, sandbox_id: &str, body: &RegisterSourceRequest) -> Result<Reply<DataSource>> {
        self.send(
            Call::sandboxes(self, Method::POST, &[sandbox_id, "sources"])?
                .json(body)?
                .creates(),
        )
        .await
    }

    /// `GET …/sources`.
    pub async fn list_sources(&self, sandbox_id: &str, query: &ListSourcesQuery) -> Result<Reply<DataSourceList>> {
        self.send(Call::sandboxes(self, Method::GET, &[sandbox_id, "sources"])?.query(query)?)
            .await
    }

    /// `GET …/sources/{source_id}`.
    pub async fn source(&self, sandbox_id: &str, source_id: &str) -> Result<Reply<DataSource>> {
        self.send(Call::sandboxes(self, Method::GET, &[sandbox_id, "sources", source_id])?)
            .await
    }

    /// The source of this provider and exact name; registered when there is none.
    pub async fn ensure_source(&self, sandbox_id: &str, body: &RegisterSourceRequest) -> Result<DataSource> {
        let query = ListSourcesQuery {
            provider: Some(body.provider.clone()),
            status: None,
        };
        let list = self.list_sources(sandbox_id, &query).await?.value.sources;
        let found = list
            .into_iter()
            .find(|source| source.name == body.name && source.provider == body.provider);
        match found {
            Some(source) => Ok(source),
            None => Ok(self.register_source(sandbox_id, body).await?.value),
        }
    }
}
