// What a feature service answers; `kind: thrift` in features.yaml asks it (docs/engines.md).
namespace py coefvq.vmp.features

// Exactly one of the three is set.
struct Value {
  1: optional bool flag,
  2: optional double number,
  3: optional string text,
}

exception Refused {
  1: string reason,
}

service Features {
  // Key -> field -> value. A key that the service does not know is left out.
  map<string, map<string, Value>> fetch(1: string store, 2: list<string> keys) throws (1: Refused refused),
}
