//! The document of the API in the OpenAPI format, made of the table of routes.
//!
//! ```text
//!   table of routes: id, method, path, role, summary --+
//!   handler's arguments: path, query, headers, body  --+-> document -> /v1/openapi.json, host/openapi.json
//!   handler's result: status, headers, body          --+
//! ```
//!
//! What an operation takes and answers is read off its handler's signature, and the schemas are those of the types, so
//! the document cannot say anything else than what the program does. Which errors there may be follows from these.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use axum::Json;
use axum::body::Body as RawBody;
use axum::extract::State;
use axum::http::{HeaderMap, Method};
use sluice_api::{ErrorBody, ErrorCode};
use sluice_model::Role;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{
    HttpMethod, OperationBuilder, Parameter, ParameterBuilder, ParameterIn,
};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, KnownFormat, ObjectBuilder, OneOfBuilder, Schema,
    SchemaFormat, Type,
};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, Content, InfoBuilder, OpenApiBuilder, PathItem, PathsBuilder, Ref, RefOr,
    Required, Response, ResponseBuilder, extensions::Extensions,
};
use utoipa::{PartialSchema as _, ToSchema};

use super::answer::{
    Body, Created, Document, Download, EventStream, Failure, Filter, IdempotencyKey, LastEventId,
    Lines, List, Segments, Tagged,
};
use super::table::{By, ETAGS_PATTERN, Effect, Operation, Shared, Whom};

/// What an operation takes and answers.
#[derive(Clone, Default)]
pub(super) struct Contract {
    /// Schemas of the parts of the path, in order.
    parts: Vec<RefOr<Schema>>,
    /// Of the query and the headers.
    parameters: Vec<Parameter>,
    body: Option<RequestBody>,
    success: Option<(u16, Response)>,
    errors: BTreeSet<u16>,
    schemas: BTreeMap<String, RefOr<Schema>>,
}

impl Contract {
    /// The contract of a handler.
    pub(super) fn of<H: Signature<D>, D>(_: &H) -> Self {
        let mut contract = Self::default();
        H::describe(&mut contract);
        contract
    }

    /// A reference to the schema of `T`, which becomes part of the document.
    fn schema<T: ToSchema>(&mut self) -> RefOr<Schema> {
        let mut schemas = Vec::new();
        T::schemas(&mut schemas);
        self.schemas.extend(schemas);
        if matches!(T::schema(), RefOr::T(Schema::Array(_))) {
            return T::schema();
        }
        self.schemas.insert(T::name().into_owned(), T::schema());
        Ref::from_schema_name(T::name()).into()
    }

    fn may_fail(&mut self, codes: &[ErrorCode]) {
        self.errors
            .extend(codes.iter().map(|code| code.http_status()));
    }
}

/// A handler, as the document sees it; `D` are its arguments.
pub(super) trait Signature<D> {
    fn describe(contract: &mut Contract);
}

macro_rules! signature {
    ($($argument:ident)*) => {
        impl<H, F, R, $($argument),*> Signature<($($argument,)*)> for H
        where
            H: Fn($($argument),*) -> F,
            F: Future<Output = R>,
            R: Answers,
            $($argument: Takes,)*
        {
            fn describe(contract: &mut Contract) {
                $($argument::describe(contract);)*
                R::describe(contract);
            }
        }
    };
}

signature!(A);
signature!(A B);
signature!(A B C);
signature!(A B C D);
signature!(A B C D E);

/// One argument of a handler.
pub(super) trait Takes {
    fn describe(contract: &mut Contract);
}

/// What comes of the program itself says nothing of the request.
macro_rules! silent {
    ($($argument:ty),*) => {$(
        impl<C> Takes for $argument {
            fn describe(_: &mut Contract) {}
        }
    )*};
}

silent!(By<C>, State<Shared<C>>);

impl Takes for Whom {
    fn describe(_: &mut Contract) {}
}

/// How long the body says that it is, and nothing that a client decides.
impl Takes for HeaderMap {
    fn describe(_: &mut Contract) {}
}

impl<T: Parts> Takes for Segments<T> {
    fn describe(contract: &mut Contract) {
        T::describe(contract);
        contract.may_fail(&[ErrorCode::NotFound]);
    }
}

impl<T: ToSchema> Takes for Filter<T> {
    fn describe(contract: &mut Contract) {
        let mut schemas = Vec::new();
        T::schemas(&mut schemas);
        contract.schemas.extend(schemas);
        let RefOr::T(Schema::Object(fields)) = T::schema() else {
            unreachable!("a query is a struct with named fields");
        };
        for (name, schema) in fields.properties {
            let description = description_of(&schema);
            let required = if fields.required.contains(&name) {
                Required::True
            } else {
                Required::False
            };
            let parameter = ParameterBuilder::new()
                .name(name)
                .parameter_in(ParameterIn::Query)
                .required(required)
                .description(description)
                .schema(Some(never_null(schema)));
            contract.parameters.push(parameter.build());
        }
        contract.may_fail(&[ErrorCode::Invalid, ErrorCode::NotFound]);
    }
}

impl<T: ToSchema> Takes for Body<T> {
    fn describe(contract: &mut Contract) {
        let schema = contract.schema::<T>();
        let body = RequestBodyBuilder::new()
            .content("application/json", Content::new(Some(schema)))
            .required(Some(Required::True));
        contract.body = Some(body.build());
        contract.may_fail(&[
            ErrorCode::Malformed,
            ErrorCode::Invalid,
            ErrorCode::NotFound,
            ErrorCode::TooLarge,
            ErrorCode::UnsupportedMediaType,
        ]);
    }
}

impl Takes for RawBody {
    fn describe(contract: &mut Contract) {
        let bytes = ObjectBuilder::new()
            .schema_type(Type::String)
            .content_media_type("application/octet-stream");
        let body = RequestBodyBuilder::new()
            .content("application/octet-stream", Content::new(Some(bytes)))
            .required(Some(Required::True));
        contract.body = Some(body.build());
        contract.may_fail(&[ErrorCode::Invalid, ErrorCode::TooLarge, ErrorCode::Timeout]);
    }
}

impl Takes for IdempotencyKey {
    fn describe(contract: &mut Contract) {
        let text = ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some("^[!-~]+$"))
            .max_length(Some(sluice_api::IDEMPOTENCY_KEY_BYTES_MAX));
        let parameter = header_parameter(
            "Idempotency-Key",
            "A request that is repeated with the same key is answered with what the first one made, whichever token it \
             comes with. A key holds as long as its run is kept, and for a day after the launch at least (of the newest \
             100,000 whose runs are not kept any more): then the repeated request is a conflict that names the run.",
            text,
        );
        contract.parameters.push(parameter);
        contract.may_fail(&[ErrorCode::Invalid]);
    }
}

impl Takes for LastEventId {
    fn describe(contract: &mut Contract) {
        let text = ObjectBuilder::new().schema_type(Type::String);
        let parameter = header_parameter(
            "Last-Event-ID",
            "Goes on behind the event with this id; where that is not known any more, the first event is `missed`.",
            text,
        );
        contract.parameters.push(parameter);
    }
}

/// The parts of a path.
pub(super) trait Parts {
    fn describe(contract: &mut Contract);
}

macro_rules! parts {
    ($($part:ty),* $(,)?) => {$(
        impl Parts for $part {
            fn describe(contract: &mut Contract) {
                let schema = contract.schema::<$part>();
                contract.parts.push(schema);
            }
        }
    )*};
}

parts!(
    sluice_model::Digest,
    sluice_model::ExecutionId,
    sluice_model::JobName,
    sluice_model::NodeName,
    sluice_model::RunId,
    sluice_model::ScheduleName,
    sluice_model::TokenId,
    sluice_api::RolloutOrder,
);

impl<A: Parts, B: Parts, C: Parts> Parts for (A, B, C) {
    fn describe(contract: &mut Contract) {
        A::describe(contract);
        B::describe(contract);
        C::describe(contract);
    }
}

impl<A: Parts, B: Parts> Parts for (A, B) {
    fn describe(contract: &mut Contract) {
        A::describe(contract);
        B::describe(contract);
    }
}

/// What a handler returns.
pub(super) trait Answers {
    fn describe(contract: &mut Contract);
}

impl<T: Success> Answers for Result<T, Failure> {
    fn describe(contract: &mut Contract) {
        let (status, response) = T::describe(contract);
        contract.success = Some((status, response));
    }
}

/// An answer that is no failure.
pub(super) trait Success {
    /// Its status, and the rest.
    fn describe(contract: &mut Contract) -> (u16, Response);
}

impl<T: ToSchema> Success for Json<T> {
    fn describe(contract: &mut Contract) -> (u16, Response) {
        let schema = contract.schema::<T>();
        (200, answer("Done.", "application/json", schema).build())
    }
}

impl<T: ToSchema> Success for List<T> {
    fn describe(contract: &mut Contract) -> (u16, Response) {
        let schema = contract.schema::<T>();
        let list = ArrayBuilder::new().items(schema);
        let link = HeaderBuilder::new()
            .schema(ObjectBuilder::new().schema_type(Type::String))
            .description(Some(
                "`<PATH?QUERY>; rel=\"next\"`: where the next page is. Absent on the last one.",
            ))
            .build();
        let what = "One page. It may have fewer items than were asked for and not be the last.";
        let response = answer(what, "application/json", list.into()).header("Link", link);
        (200, response.build())
    }
}

impl Success for Document {
    fn describe(_: &mut Contract) -> (u16, Response) {
        let any =
            ObjectBuilder::new().additional_properties(Some(AdditionalProperties::FreeForm(true)));
        (
            200,
            answer("The document.", "application/json", any.into()).build(),
        )
    }
}

impl<T: ToSchema> Success for Created<T> {
    fn describe(contract: &mut Contract) -> (u16, Response) {
        let schema = contract.schema::<T>();
        let what = "Stored; also when an earlier request with the same key did it.";
        (201, answer(what, "application/json", schema).build())
    }
}

impl<T: ToSchema> Success for Tagged<T> {
    fn describe(contract: &mut Contract) -> (u16, Response) {
        let schema = contract.schema::<T>();
        let etag = HeaderBuilder::new()
            .schema(ObjectBuilder::new().schema_type(Type::String))
            .description(Some("What to send as `If-Match` with an order about it."))
            .build();
        let response = answer("Done.", "application/json", schema).header("ETag", etag);
        (200, response.build())
    }
}

impl<T: ToSchema> Success for Lines<T> {
    fn describe(contract: &mut Contract) -> (u16, Response) {
        let schema = contract.schema::<T>();
        let what = "Objects of this form, one a line, as they come.";
        (200, answer(what, "application/x-ndjson", schema).build())
    }
}

impl Success for EventStream {
    fn describe(contract: &mut Contract) -> (u16, Response) {
        let schema = contract.schema::<sluice_api::Event>();
        let what = "Server-sent events, as they come: the type is the `kind`, the data an object of this form. `missed` \
                    says that some were lost, `all` that too much changed to name it: ask for what you watch.";
        (200, answer(what, "text/event-stream", schema).build())
    }
}

impl Success for Download {
    fn describe(_: &mut Contract) -> (u16, Response) {
        let bytes = ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)));
        let etag = HeaderBuilder::new()
            .schema(ObjectBuilder::new().schema_type(Type::String))
            .description(Some("The digest of the bytes."))
            .build();
        let response = answer("The bytes.", "application/octet-stream", bytes.into());
        (200, response.header("ETag", etag).build())
    }
}

fn answer(what: &str, sort: &str, schema: RefOr<Schema>) -> ResponseBuilder {
    ResponseBuilder::new()
        .description(what)
        .content(sort, Content::new(Some(schema)))
}

fn header_parameter(name: &str, what: &str, schema: ObjectBuilder) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(what))
        .schema(Some(schema))
        .build()
}

fn description_of(schema: &RefOr<Schema>) -> Option<String> {
    match schema {
        RefOr::Ref(reference) if reference.description.is_empty() => None,
        RefOr::Ref(reference) => Some(reference.description.clone()),
        RefOr::T(Schema::Object(object)) => object.description.clone(),
        RefOr::T(Schema::Array(array)) => array.description.clone(),
        RefOr::T(Schema::OneOf(one_of)) => one_of.description.clone(),
        RefOr::T(_) => None,
    }
}

/// What stands in a query is never null: it is absent.
fn never_null(schema: RefOr<Schema>) -> RefOr<Schema> {
    use utoipa::openapi::schema::SchemaType;
    match schema {
        RefOr::T(Schema::OneOf(one_of)) => {
            let is_null = |item: &RefOr<Schema>| {
                matches!(item, RefOr::T(Schema::Object(object))
                    if object.schema_type == SchemaType::Type(Type::Null))
            };
            let mut items: Vec<_> = one_of
                .items
                .into_iter()
                .filter(|item| !is_null(item))
                .collect();
            if items.len() == 1 {
                return items.remove(0);
            }
            items
                .into_iter()
                .fold(OneOfBuilder::new(), OneOfBuilder::item)
                .into()
        }
        RefOr::T(Schema::Object(mut object)) => {
            if let SchemaType::Array(types) = &object.schema_type {
                let sort = types.iter().find(|sort| **sort != Type::Null);
                object.schema_type = SchemaType::Type(sort.cloned().unwrap_or(Type::String));
            }
            RefOr::T(Schema::Object(object))
        }
        other => other,
    }
}

/// The document, as it is served and checked in.
pub(super) fn document(rows: &[(Operation, Contract)]) -> String {
    let mut paths = PathsBuilder::new();
    let mut schemas: BTreeMap<String, RefOr<Schema>> = BTreeMap::new();
    let mut errors: BTreeSet<u16> = BTreeSet::new();
    for (operation, contract) in rows {
        schemas.extend(contract.schemas.clone());
        let statuses = statuses_of(operation, contract);
        errors.extend(&statuses);
        let item = PathItem::new(
            method_of(operation),
            describe(operation, contract, &statuses),
        );
        paths = paths.path(operation.path, item);
    }
    let mut of_errors = Vec::new();
    ErrorBody::schemas(&mut of_errors);
    schemas.extend(of_errors);
    schemas.insert(ErrorBody::name().into_owned(), ErrorBody::schema());
    let token = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "The token in `operator.toml`, or one that `sluice token create --role` made.",
        ))
        .build();
    let components = errors
        .into_iter()
        .fold(ComponentsBuilder::new(), |components, status| {
            components.response(format!("{status}"), refusal(status))
        })
        .schemas_from_iter(schemas)
        .security_scheme("token", SecurityScheme::Http(token));
    let info = InfoBuilder::new()
        .title("Sluice")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "The orchestrator's API. A list is one array, times are RFC 3339 in UTC, counts are integers. Fields may be \
             added, none is renamed: ignore what you do not know. Every answer that is not a success has an `ErrorBody`. \
             Every request needs a token, this document's too.",
        ));
    let document = OpenApiBuilder::new()
        .info(info.build())
        .paths(paths.build())
        .components(Some(components.build()))
        .security(Some([bearer()]))
        .build();
    let mut document =
        serde_json::to_value(document).expect("the document has nothing JSON cannot say");
    let known = by_text(&document["components"]["schemas"]);
    by_reference(&mut document["paths"], &known);
    without_links(&mut document);
    let mut text = serde_json::to_string_pretty(&document).expect("it was a value just now");
    text.push('\n');
    text
}

fn bearer() -> SecurityRequirement {
    SecurityRequirement::new("token", [""; 0])
}

fn method_of(operation: &Operation) -> HttpMethod {
    match operation.method {
        Method::POST => HttpMethod::Post,
        Method::PUT => HttpMethod::Put,
        Method::DELETE => HttpMethod::Delete,
        _ => HttpMethod::Get,
    }
}

/// The statuses of the errors that an operation may answer.
fn statuses_of(operation: &Operation, contract: &Contract) -> BTreeSet<u16> {
    let mut codes = vec![
        ErrorCode::Unauthorized,
        ErrorCode::RateLimited,
        ErrorCode::Internal,
        ErrorCode::Unavailable,
    ];
    if operation.role > Role::Reader {
        codes.push(ErrorCode::Forbidden);
    }
    if operation.effect != Effect::Reads {
        codes.extend([ErrorCode::Conflict, ErrorCode::Invalid, ErrorCode::DiskFull]);
    }
    if operation.conditional {
        codes.push(ErrorCode::Stale);
    }
    let mut statuses: BTreeSet<u16> = codes.iter().map(|code| code.http_status()).collect();
    statuses.extend(&contract.errors);
    statuses
}

fn describe(
    operation: &Operation,
    contract: &Contract,
    statuses: &BTreeSet<u16>,
) -> utoipa::openapi::path::Operation {
    let tag = operation.id.split('.').next().unwrap_or(operation.id);
    let mut out = OperationBuilder::new()
        .operation_id(Some(operation.id))
        .tag(tag)
        .summary(Some(operation.summary))
        .description(Some(format!(
            "Needs a token of the role {}.",
            operation.role
        )))
        .extensions(Some(Extensions::from_iter([(
            "x-role",
            operation.role.as_str(),
        )])));
    for (name, schema) in names_of(operation.path).zip(&contract.parts) {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .schema(Some(schema.clone()));
        out = out.parameter(parameter);
    }
    for parameter in &contract.parameters {
        out = out.parameter(parameter.clone());
    }
    if operation.conditional {
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let etags = text().pattern(Some(ETAGS_PATTERN));
        let what = "Done only if one of these is its `ETag` still; `*`: if it is there at all.";
        out = out.parameter(header_parameter("If-Match", what, etags));
        let absent = text().enum_values(Some(["*"]));
        let what = "`*`: done only if it is not there.";
        out = out.parameter(header_parameter("If-None-Match", what, absent));
    }
    if let Some((status, response)) = &contract.success {
        out = out.response(status.to_string(), response.clone());
    }
    for status in statuses {
        let response = Ref::from_response_name(status.to_string());
        out = out.response(status.to_string(), RefOr::<Response>::Ref(response));
    }
    out.request_body(contract.body.clone()).build()
}

/// The names in a path's braces.
pub(super) fn names_of(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter_map(|piece| piece.strip_prefix('{')?.strip_suffix('}'))
}

/// The answer that every error of this status is.
fn refusal(status: u16) -> Response {
    let what = match status {
        400 => "The body cannot be read at all.",
        401 => "No token, or not a known one.",
        403 => "This token may not.",
        404 => "No such thing.",
        408 => "It took too long.",
        409 => "It does not fit what is there now.",
        412 => "It is not as it was seen any more: look again.",
        413 => "More bytes than allowed.",
        415 => "The body is of a sort that the route does not take.",
        422 => "The request, or what it carries, is wrong.",
        429 => "Too many requests; try again in a second.",
        500 => "A fault of the orchestrator; its log says more.",
        503 => "Not now; try again.",
        507 => "The orchestrator's disk is full.",
        _ => "Refused.",
    };
    let schema = Ref::from_schema_name(ErrorBody::name());
    answer(what, "application/json", schema.into()).build()
}

/// Named schemas by what they are.
fn by_text(schemas: &serde_json::Value) -> BTreeMap<String, String> {
    let named = schemas.as_object().into_iter().flatten();
    let reference = |name: &String| format!("#/components/schemas/{name}");
    named
        .map(|(name, schema)| (schema.to_string(), reference(name)))
        .collect()
}

/// Puts a reference where a named schema is spelled out, as in a list of it.
fn by_reference(value: &mut serde_json::Value, known: &BTreeMap<String, String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                let found = known.get(&value.to_string());
                match found.filter(|_| name == "items") {
                    Some(reference) => *value = serde_json::json!({ "$ref": reference }),
                    None => by_reference(value, known),
                }
            }
        }
        serde_json::Value::Array(items) => {
            for item in items {
                by_reference(item, known);
            }
        }
        _ => {}
    }
}

/// Takes the links out of descriptions: they are those of the program's own documentation.
fn without_links(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    serde_json::Value::String(text) if name == "description" => {
                        *text = plain(text);
                    }
                    other => without_links(other),
                }
            }
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(without_links),
        _ => {}
    }
}

fn plain(text: &str) -> String {
    text.replace("[`", "`")
        .replace("`]", "`")
        .replace("crate::routes::", "")
        .replace("crate::", "")
        .replace("Self::", "")
}
