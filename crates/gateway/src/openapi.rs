//! The OpenAPI document, made from the same declarations that mount the routes, so neither can lack what the other has.

use axum::Router;
use copass_types::api::ErrorBody;
use utoipa::{
    PartialSchema as _, ToSchema as _,
    openapi::{
        ContentBuilder, InfoBuilder, License, OpenApi, OpenApiBuilder, PathItem, Ref, RefOr, Required, ResponseBuilder,
        Schema, ServerBuilder,
        path::Operation,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;

use crate::{normalise::API_PREFIX, routes, state::App};

/// The name of the one security scheme.
pub(crate) const BEARER: &str = "bearer";

/// The routes and their document.
pub(crate) fn build() -> (Router<App>, OpenApi) {
    let info = InfoBuilder::new()
        .title("Copass-compatible control plane")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Every path is served with and without /api/v1, and with and without a trailing slash. Errors have one \
             shape: `{error, detail, request_id}`.",
        ))
        .license(Some(License::new("MIT OR Apache-2.0")))
        .build();
    let document = OpenApiBuilder::new().info(info).build();
    let (router, mut document) = routes::mount(OpenApiRouter::with_openapi(document)).split_for_parts();
    describe_errors(&mut document);
    describe_bodies(&mut document);
    (router, document)
}

/// Where the document says that the server is.
pub(crate) fn set_servers(document: &mut OpenApi, public_url: Option<&str>) {
    let base = public_url.unwrap_or_default().trim_end_matches('/');
    let server = |path: &str| ServerBuilder::new().url(format!("{base}{path}")).build();
    document.servers = Some(vec![server(API_PREFIX), server(if base.is_empty() { "/" } else { "" })]);
}

/// Gives every operation the one error answer, and the document the scheme that operations name.
fn describe_errors(document: &mut OpenApi) {
    let components = document.components.get_or_insert_default();
    let mut schemas = vec![(ErrorBody::name().into_owned(), ErrorBody::schema())];
    ErrorBody::schemas(&mut schemas);
    components.schemas.extend(schemas);
    components.security_schemes.insert(
        BEARER.to_owned(),
        RefOr::T(SecurityScheme::Http(
            HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build(),
        )),
    );
    let schema = RefOr::Ref(Ref::from_schema_name(ErrorBody::name()));
    let error = ResponseBuilder::new()
        .description("Any error")
        .content("application/json", ContentBuilder::new().schema(Some(schema)).build())
        .build();
    for operation in document.paths.paths.values_mut().flat_map(operations) {
        operation
            .responses
            .responses
            .insert("default".to_owned(), error.clone().into());
    }
}

/// Says of each body whether it must be there: an empty one counts as `{}`, which is enough where no field is required.
fn describe_bodies(document: &mut OpenApi) {
    let Some(components) = &document.components else { return };
    let bodies = document
        .paths
        .paths
        .values_mut()
        .flat_map(operations)
        .filter_map(|operation| operation.request_body.as_mut());
    for body in bodies {
        let RefOr::T(body) = body else { continue };
        let may_be_empty = body.content.values().all(|content| {
            let RefOr::T(content) = content else { return false };
            let Some(RefOr::Ref(schema)) = &content.schema else {
                return false;
            };
            let name = schema.ref_location.rsplit('/').next().unwrap_or_default();
            matches!(components.schemas.get(name), Some(RefOr::T(Schema::Object(object))) if object.required.is_empty())
        });
        if may_be_empty {
            body.required = Some(Required::False);
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [
        &mut item.get,
        &mut item.put,
        &mut item.post,
        &mut item.patch,
        &mut item.delete,
    ]
    .into_iter()
    .flatten()
}
