package access

// The services, as paths.
const (
	assignments = "/rollcall.registry.v1.AssignmentService/"
	collectors  = "/rollcall.registry.v1.CollectorService/"
	placements  = "/rollcall.registry.v1.PlacementService/"
	producers   = "/rollcall.registry.v1.ProducerService/"
	collection  = "/rollcall.collector.v1.CollectionService/"
	exposition  = "/rollcall.producer.v1.ExpositionService/"
	health      = "/grpc.health.v1.Health/"
	channelz    = "/grpc.channelz.v1.Channelz/"
)

// The fields of requests that the rows name.
const (
	collectorField    = "collector_id"
	producerField     = "producer_id"
	producersField    = "producer_ids"
	observeField      = "observe"
	untilRestartField = "until_restart"
	validateOnlyField = "validate_only"
)

// Methods is the table: who may call what. One that is not here is refused.
func Methods() []Method {
	var all []Method
	for _, part := range [][]Method{
		assignmentMethods(), collectorMethods(), placementMethods(), producerMethods(), collectionMethods(), otherMethods(),
	} {
		all = append(all, part...)
	}
	return all
}

// permit lets roles make a call, whoever it is about.
func permit(roles ...Role) []Permit {
	all := make([]Permit, len(roles))
	for i, role := range roles {
		all[i] = Permit{Role: role, Scope: Any}
	}
	return all
}

// own lets a role make a call about itself.
func own(role Role) Permit { return Permit{Role: role, Scope: Own} }

// and adds to a row.
func and(permits []Permit, more ...Permit) []Permit { return append(permits, more...) }

// The subjects of requests that name one.
func aCollector() Subject { return Subject{CollectorID, collectorField} }

func aProducer() Subject { return Subject{ProducerID, producerField} }

// assignmentMethods are how a collector gets its set. Nobody subscribes for
// another one, an operator neither: the registry would take him for it. What
// acknowledgements tell is not for the log: they come all the time.
func assignmentMethods() []Method {
	return []Method{
		{Name: assignments + "Subscribe", Subject: aCollector(), Permits: []Permit{
			{Role: Collector, Scope: Own, Without: observeField},
			{Role: Operator, Scope: Any, With: observeField},
			{Role: Reader, Scope: Any, With: observeField},
		}},
		{Name: assignments + "Acknowledge", Subject: aCollector(), Permits: []Permit{own(Collector)}},
	}
}

func collectorMethods() []Method {
	see := permit(Collector, Registry, Operator, Reader)
	return []Method{
		{
			Name: collectors + "RegisterCollector", Permits: []Permit{own(Collector)},
			Subject: Subject{CollectorID, "collector." + collectorField},
			Audit:   &Audit{Shown: []string{"collector.instance_id"}},
		},
		{Name: collectors + "GetCollector", Subject: aCollector(), Permits: see},
		{Name: collectors + "ListCollectors", Permits: see},
		{
			// A collector hands off what it has before it stops, and no longer.
			Name: collectors + "DrainCollector", Subject: aCollector(),
			Permits: and(permit(Operator), Permit{Role: Collector, Scope: Own, With: untilRestartField}),
			Audit:   &Audit{DryRun: validateOnlyField, Shown: []string{untilRestartField, "instance_id"}},
		},
		{Name: collectors + "UndrainCollector", Subject: aCollector(), Permits: permit(Operator), Audit: &Audit{}},
		{
			Name: collectors + "ExpungeCollector", Subject: aCollector(), Permits: permit(Operator),
			Audit: &Audit{Shown: []string{"force"}},
		},
	}
}

func placementMethods() []Method {
	return []Method{
		{Name: placements + "PreviewRebalance", Permits: permit(Operator, Reader)},
		{Name: placements + "Rebalance", Permits: permit(Operator), Audit: &Audit{Shown: []string{"max_move_count"}}},
		{
			Name: placements + "MoveProducer", Subject: aProducer(), Permits: permit(Operator),
			Audit: &Audit{Shown: []string{collectorField}},
		},
		{
			Name: placements + "AdoptProducers", Permits: permit(Operator),
			Subject: Subject{ProducerID, "assignments." + producerField},
			Audit:   &Audit{DryRun: validateOnlyField, Partial: true, Shown: []string{collectorField}},
		},
		{Name: placements + "ConfirmExpiry", Permits: permit(Operator), Audit: &Audit{Shown: []string{"mode", "duration"}}},
	}
}

func producerMethods() []Method {
	its := and(permit(Operator), own(Producer), own(Collector))
	return []Method{
		{
			Name: producers + "RegisterProducer", Permits: its,
			Subject: Subject{ProducerID, "producer." + producerField},
			Audit:   &Audit{DryRun: validateOnlyField, Shown: []string{"producer.endpoint"}},
		},
		{
			Name: producers + "BatchRegisterProducers", Permits: its,
			Subject: Subject{ProducerID, "requests.producer." + producerField},
			Audit:   &Audit{DryRun: "requests." + validateOnlyField, Outcome: "results.response", Codes: "results.code"},
		},
		{Name: producers + "DeregisterProducer", Subject: aProducer(), Permits: its, Audit: &Audit{}},
		{
			Name: producers + "GetProducer", Subject: aProducer(),
			Permits: and(permit(Operator, Reader), own(Producer), own(Collector)),
		},
		{Name: producers + "ListProducers", Permits: permit(Operator, Reader)},
	}
}

func collectionMethods() []Method {
	see := and(permit(Operator, Reader), Permit{Role: Collector, Scope: Self})
	return []Method{
		{Name: collection + "GetMembership", Permits: see},
		{Name: collection + "ListCollections", Permits: see},
		{Name: collection + "GetCollection", Subject: aProducer(), Permits: see},
		{Name: collection + "ListHeld", Permits: see},
		{Name: collection + "GetConfiguration", Permits: see},
		{Name: collection + "ListSinks", Permits: see},
		{Name: collection + "Witness", Subject: Subject{ProducerID, producersField}, Permits: permit(Registry, Operator, Reader)},
		{Name: collection + "Select", Permits: permit(Collector, Operator, Reader)},
		{Name: collection + "CollectNow", Subject: aProducer(), Permits: permit(Operator), Audit: &Audit{}},
		{
			Name: collection + "ReleaseHeld", Subject: Subject{ProducerID, producersField}, Permits: permit(Operator),
			Audit: &Audit{Shown: []string{"all"}},
		},
		{Name: collection + "ReloadConfiguration", Permits: permit(Operator), Audit: &Audit{}},
		{
			Name: collection + "DeleteSeries", Permits: permit(Operator),
			Audit: &Audit{Shown: []string{"selectors", "start_ms", "end_ms"}},
		},
		{Name: collection + "CreateSnapshot", Permits: permit(Operator), Audit: &Audit{}},
	}
}

// otherMethods are a producer's, and those of gRPC itself. Health is for the
// probes, which prove nothing.
func otherMethods() []Method {
	all := []Method{
		{Name: exposition + "Collect", Permits: permit(Collector, Operator, Reader)},
		{Name: health + "Check", Open: true},
		{Name: health + "List", Open: true},
		{Name: health + "Watch", Open: true},
		{Name: "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Permits: permit(Operator)},
		{Name: "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Permits: permit(Operator)},
	}
	for _, name := range []string{
		"GetTopChannels", "GetServers", "GetServer", "GetServerSockets", "GetChannel", "GetSubchannel", "GetSocket",
	} {
		all = append(all, Method{Name: channelz + name, Permits: permit(Operator)})
	}
	return all
}
