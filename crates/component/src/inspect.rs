//! Reads a component: one pass that validates every byte and collects what people and the import check need.

use wasmparser::{
    ComponentExternName, ComponentExternalKind, ComponentTypeRef, Encoding,
    FuncValidatorAllocations, MemoryType, Parser, Payload, TableType, ValidPayload, Validator,
    WasmFeatures,
};

use sluice_model::World;

use crate::{ENDING_INTERFACE, InterfaceName, STAGE_INTERFACE};

/// Largest component, in bytes: room for an interpreter of another language inside a component (about 18 MiB today),
/// and still something that an orchestrator can hold in memory while it checks it.
pub const COMPONENT_BYTES_MAX: usize = 64 << 20;

/// Why bytes are not a component that Sluice takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    /// Over [`COMPONENT_BYTES_MAX`].
    #[error(
        "it has {bytes} bytes, and a component may have {COMPONENT_BYTES_MAX} (64 MiB); build it with optimisation and without debug information"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Nothing at all: often a build that failed half way.
    #[error("it is empty; build it again")]
    Empty,
    /// It does not start like a Wasm file.
    #[error("it is not a Wasm file: it does not start with `\\0asm`{}", text_hint(*is_text))]
    NotWasm {
        /// Whether it looks like the text format.
        is_text: bool,
    },
    /// A Wasm module that nothing wrapped into a component.
    #[error(
        "this is a core module, not a component; build it with `linker = \"wasm-component-ld\"` for wasm32-unknown-unknown, or for wasm32-wasip2"
    )]
    CoreModule,
    /// Damaged, cut off, or using what this version's engine lacks.
    #[error("it is damaged or not understood at byte {offset}: {message}; build it again")]
    Invalid {
        /// Where.
        offset: u64,
        /// What is wrong there.
        message: String,
    },
}

/// What a component is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The file's size.
    pub bytes: usize,
    /// What it needs, in its own order; types count too.
    pub imports: Vec<Import>,
    /// What it offers, in its own order.
    pub exports: Vec<Export>,
    /// What the core modules inside it declare.
    pub core: CoreFacts,
}

/// One thing that a component needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// The full name, with its version.
    pub name: String,
    /// What stands behind the name.
    pub kind: ExternKind,
}

/// One thing that a component offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The full name, with its version.
    pub name: String,
    /// What stands behind the name.
    pub kind: ExternKind,
}

/// What a component imports or exports under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExternKind {
    /// An interface.
    Instance,
    /// A single function.
    Function,
    /// A single type.
    Type,
    /// A core module.
    Module,
    /// A whole component.
    Component,
    /// A value.
    Value,
}

impl ExternKind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Instance => "interface",
            Self::Function => "function",
            Self::Type => "type",
            Self::Module => "module",
            Self::Component => "component",
            Self::Value => "value",
        }
    }
}

/// What the core modules of a component declare; each module counts once, however often it is instantiated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoreFacts {
    /// How many modules.
    pub modules: u32,
    /// How many functions have a body.
    pub functions: u32,
    /// Memory that the modules start with, in bytes.
    pub memory_bytes_min: u64,
    /// Table elements that the modules start with.
    pub table_elements_min: u64,
}

impl Inspection {
    /// The version of the stage contract that it exports, if that is a 0.1.x.
    pub fn stage_version(&self) -> Option<&str> {
        self.version_of(STAGE_INTERFACE)
    }

    /// The world that it is made for; `None` when it is no stage of a 0.1.x.
    pub fn world(&self) -> Option<World> {
        self.stage_version()?;
        Some(match self.version_of(ENDING_INTERFACE) {
            Some(_) => World::Report,
            None => World::Transform,
        })
    }

    /// The version of an interface that it exports, if that is a 0.1.x.
    fn version_of(&self, interface: &str) -> Option<&str> {
        self.exports
            .iter()
            .filter(|export| export.kind == ExternKind::Instance)
            .find_map(|export| {
                let name = InterfaceName::parse(&export.name)?;
                (name.path() == interface && name.is_release_of("0.1.")).then_some(name.version)?
            })
    }
}

/// Validates `bytes` and lists what is inside. Takes time and memory in proportion to the size.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, InspectError> {
    check_header(bytes)?;
    let mut validator = Validator::new_with_features(features());
    let mut parser = Parser::new(0);
    parser.set_features(features());
    let mut found = Inspection {
        bytes: bytes.len(),
        imports: Vec::new(),
        exports: Vec::new(),
        core: CoreFacts::default(),
    };
    let mut bodies = Vec::new();
    // How many modules and components stand open around the payload; the outermost component has 1.
    let mut depth = 0_u32;
    for payload in parser.parse_all(bytes) {
        let payload = payload.map_err(invalid)?;
        match validator.payload(&payload).map_err(invalid)? {
            ValidPayload::Func(validator, body) => bodies.push((validator, body)),
            ValidPayload::End(_) => depth = depth.saturating_sub(1),
            ValidPayload::Ok | ValidPayload::Parser(_) => {}
        }
        match payload {
            Payload::Version { encoding, .. } => {
                depth += 1;
                found.core.modules += u32::from(encoding == Encoding::Module);
            }
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    let import = import.map_err(invalid)?;
                    found.imports.push(Import {
                        name: full_name(&import.name),
                        kind: import_kind(import.ty),
                    });
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    let export = export.map_err(invalid)?;
                    found.exports.push(Export {
                        name: full_name(&export.name),
                        kind: export_kind(export.kind),
                    });
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    found.core.add_memory(&memory.map_err(invalid)?);
                }
            }
            Payload::TableSection(section) => {
                for table in section {
                    found.core.add_table(&table.map_err(invalid)?.ty);
                }
            }
            Payload::CodeSectionEntry(_) => found.core.functions += 1,
            _ => {}
        }
    }
    let mut allocations = FuncValidatorAllocations::default();
    for (validator, body) in bodies {
        let mut validator = validator.into_validator(allocations);
        validator.validate(&body).map_err(invalid)?;
        allocations = validator.into_allocations();
    }
    Ok(found)
}

impl CoreFacts {
    fn add_memory(&mut self, memory: &MemoryType) {
        // Without the custom-page-sizes proposal every page has 64 KiB.
        self.memory_bytes_min = self
            .memory_bytes_min
            .saturating_add(memory.initial.saturating_mul(64 << 10));
    }

    fn add_table(&mut self, table: &TableType) {
        self.table_elements_min = self.table_elements_min.saturating_add(table.initial);
    }
}

/// What the sandbox's engine runs: a component that needs more is refused here, with a place, rather than on each edge.
fn features() -> WasmFeatures {
    WasmFeatures::default()
        .difference(WasmFeatures::GC)
        .difference(WasmFeatures::GC_TYPES)
        .difference(WasmFeatures::EXCEPTIONS)
        .difference(WasmFeatures::THREADS)
        .difference(WasmFeatures::CM_ASYNC)
}

fn check_header(bytes: &[u8]) -> Result<(), InspectError> {
    if bytes.len() > COMPONENT_BYTES_MAX {
        return Err(InspectError::TooLarge { bytes: bytes.len() });
    }
    if bytes.is_empty() {
        return Err(InspectError::Empty);
    }
    if !bytes.starts_with(b"\0asm") && !b"\0asm".starts_with(bytes) {
        let is_text = bytes.trim_ascii_start().starts_with(b"(");
        return Err(InspectError::NotWasm { is_text });
    }
    if Parser::is_core_wasm(bytes) {
        return Err(InspectError::CoreModule);
    }
    Ok(())
}

/// The name with its whole version: a file may keep `1` and `.2.3` of `a:b/c@1.2.3` apart.
fn full_name(name: &ComponentExternName<'_>) -> String {
    match (name.implements, name.version_suffix) {
        (None, Some(suffix)) => format!("{}{suffix}", name.name),
        _ => name.name.to_owned(),
    }
}

fn text_hint(is_text: bool) -> &'static str {
    if is_text {
        " (it looks like the text format: translate it first)"
    } else {
        ""
    }
}

fn invalid(error: wasmparser::BinaryReaderError) -> InspectError {
    InspectError::Invalid {
        offset: error.offset() as u64,
        message: error.message().to_owned(),
    }
}

fn import_kind(ty: ComponentTypeRef) -> ExternKind {
    match ty {
        ComponentTypeRef::Module(_) => ExternKind::Module,
        ComponentTypeRef::Func(_) => ExternKind::Function,
        ComponentTypeRef::Value(_) => ExternKind::Value,
        ComponentTypeRef::Type(_) => ExternKind::Type,
        ComponentTypeRef::Instance(_) => ExternKind::Instance,
        ComponentTypeRef::Component(_) => ExternKind::Component,
    }
}

fn export_kind(kind: ComponentExternalKind) -> ExternKind {
    match kind {
        ComponentExternalKind::Module => ExternKind::Module,
        ComponentExternalKind::Func => ExternKind::Function,
        ComponentExternalKind::Value => ExternKind::Value,
        ComponentExternalKind::Type => ExternKind::Type,
        ComponentExternalKind::Instance => ExternKind::Instance,
        ComponentExternalKind::Component => ExternKind::Component,
    }
}
