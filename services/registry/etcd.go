package registry

import "github.com/rollcall-metrics/rollcall/services/registry/internal/store"

// An EtcdConfig says which etcd keeps the roster. Its Logger is not used: the
// registry's is.
type EtcdConfig = store.ExternalConfig
