package store

import (
	storev1 "github.com/rollcall-metrics/rollcall/gen/rollcall/store/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// The two directions of each record check the same things, so that a record
// which was written can be read.

func packEpoch(r *roster.Epoch) (*storev1.EpochRecord, error) {
	var f fault
	f.filled("epoch", len(r.Epoch))
	return &storev1.EpochRecord{
		Epoch:      string(r.Epoch),
		CreateTime: f.stamp("create_time", r.CreateTime),
	}, f.first()
}

func unpackEpoch(m *storev1.EpochRecord) (*roster.Epoch, error) {
	var f fault
	f.filled("epoch", len(m.GetEpoch()))
	return &roster.Epoch{
		Epoch:      assignment.Epoch(m.GetEpoch()),
		CreateTime: f.time("create_time", m.GetCreateTime()),
		Extra:      extraOf(m),
	}, f.first()
}

func packProducer(r *roster.Producer) (*storev1.ProducerRecord, error) {
	var f fault
	f.filled("assignment", len(r.Stored))
	f.collector(string(r.Collector))
	m := &storev1.ProducerRecord{
		Assignment:    r.Stored,
		InstanceIds:   texts(r.Instances.All()),
		CollectorId:   string(r.Collector),
		AssignTime:    f.stamp("assign_time", r.AssignTime),
		AssignReason:  int32(r.AssignReason),
		CreateTime:    f.stamp("create_time", r.CreateTime),
		UpdateTime:    f.stamp("update_time", r.UpdateTime),
		Permanent:     r.Permanent,
		LeaseDuration: f.span("lease_duration", r.Lease),
		ExpireAfter:   f.span("expire_after", r.ExpireAfter),
		Zone:          r.Zone,
		HandoffFrom:   string(r.HandoffFrom),
		MovedFrom:     string(r.MovedFrom),
		Owner:         uint64(r.Owner),

		ExpectedSamplesPerSecond: f.rate("expected_samples_per_second", r.Rate),
	}
	f.collector(string(r.HandoffFrom))
	f.collector(string(r.MovedFrom))
	f.instances(m.GetInstanceIds())
	return m, f.first()
}

func unpackProducer(id assignment.ProducerID, m *storev1.ProducerRecord) (*roster.Producer, error) {
	var f fault
	f.filled("assignment", len(m.GetAssignment()))
	r := &roster.Producer{
		ID:           id,
		Stored:       m.GetAssignment(),
		Version:      assignment.VersionOf(m.GetAssignment()),
		Instances:    f.instances(m.GetInstanceIds()),
		Collector:    f.collector(m.GetCollectorId()),
		AssignTime:   f.time("assign_time", m.GetAssignTime()),
		AssignReason: roster.PlacementReason(m.GetAssignReason()),
		CreateTime:   f.time("create_time", m.GetCreateTime()),
		UpdateTime:   f.time("update_time", m.GetUpdateTime()),
		HandoffFrom:  f.collector(m.GetHandoffFrom()),
		MovedFrom:    f.collector(m.GetMovedFrom()),
		Life: roster.Life{
			Permanent:   m.GetPermanent(),
			Lease:       f.duration("lease_duration", m.GetLeaseDuration()),
			ExpireAfter: f.duration("expire_after", m.GetExpireAfter()),
		},
		Zone:  m.GetZone(),
		Rate:  f.rate("expected_samples_per_second", m.GetExpectedSamplesPerSecond()),
		Owner: roster.Owner(m.GetOwner()),
		Extra: extraOf(m),
	}
	if r.Life == (roster.Life{}) {
		r.Life = roster.LifeOf(r.Instances != "") // of a version that knew no leases
	}
	return r, f.first()
}

func packCollector(r *roster.Collector) (*storev1.CollectorRecord, error) {
	var f fault
	m := &storev1.CollectorRecord{
		IntrospectionEndpoint: r.IntrospectionEndpoint,
		SoftwareVersion:       r.SoftwareVersion,
		CreateTime:            f.stamp("create_time", r.CreateTime),
		Zone:                  r.Zone,
		DrainTime:             f.stamp("drain_time", r.DrainTime),
		ExpungeTime:           f.stamp("expunge_time", r.ExpungeTime),
		DrainInstanceId:       string(r.DrainInstance),

		CapacitySamplesPerSecond: f.rate("capacity_samples_per_second", r.Capacity),
	}
	for _, at := range r.GoneTimes {
		m.GoneTimes = append(m.GoneTimes, f.stamp("gone_times", at))
	}
	for _, instance := range r.Instances {
		f.instance("instances.instance_id", string(instance.ID))
		f.natural("instances.generation", int64(instance.Generation))
		m.Instances = append(m.Instances, &storev1.CollectorInstance{
			InstanceId: string(instance.ID), Generation: int64(instance.Generation),
		})
	}
	for _, label := range r.Labels {
		m.Labels = append(m.Labels, &storev1.CollectorLabel{Name: label.Name, Value: label.Value})
	}
	return m, f.first()
}

func unpackCollector(id assignment.CollectorID, m *storev1.CollectorRecord) (*roster.Collector, error) {
	var f fault
	r := &roster.Collector{
		ID:                    id,
		IntrospectionEndpoint: m.GetIntrospectionEndpoint(),
		SoftwareVersion:       m.GetSoftwareVersion(),
		CreateTime:            f.time("create_time", m.GetCreateTime()),
		Capacity:              f.rate("capacity_samples_per_second", m.GetCapacitySamplesPerSecond()),
		Zone:                  m.GetZone(),
		DrainTime:             f.time("drain_time", m.GetDrainTime()),
		ExpungeTime:           f.time("expunge_time", m.GetExpungeTime()),
		DrainInstance:         assignment.InstanceID(m.GetDrainInstanceId()),
		Extra:                 extraOf(m),
	}
	for _, at := range m.GetGoneTimes() {
		r.GoneTimes = append(r.GoneTimes, f.time("gone_times", at))
	}
	for _, instance := range m.GetInstances() {
		f.natural("instances.generation", instance.GetGeneration())
		r.Instances = append(r.Instances, roster.Instance{
			ID:         f.instance("instances.instance_id", instance.GetInstanceId()),
			Generation: assignment.Generation(instance.GetGeneration()),
		})
	}
	for _, label := range m.GetLabels() {
		r.Labels = append(r.Labels, assignment.Label{Name: label.GetName(), Value: label.GetValue()})
	}
	return r, f.first()
}

func packSession(r *roster.Session) (*storev1.SessionRecord, error) {
	var f fault
	f.instance("instance_id", string(r.Instance))
	f.instance("registry_instance_id", string(r.Registry))
	f.natural("generation", int64(r.Generation))
	return &storev1.SessionRecord{
		SubscriptionId:     r.SubscriptionID,
		InstanceId:         string(r.Instance),
		Generation:         int64(r.Generation),
		RegistryInstanceId: string(r.Registry),
		ConnectTime:        f.stamp("connect_time", r.ConnectTime),
	}, f.first()
}

func unpackSession(id assignment.CollectorID, m *storev1.SessionRecord) (*roster.Session, error) {
	var f fault
	f.natural("generation", m.GetGeneration())
	return &roster.Session{
		Collector:      id,
		SubscriptionID: m.GetSubscriptionId(),
		Instance:       f.instance("instance_id", m.GetInstanceId()),
		Generation:     assignment.Generation(m.GetGeneration()),
		Registry:       f.instance("registry_instance_id", m.GetRegistryInstanceId()),
		ConnectTime:    f.time("connect_time", m.GetConnectTime()),
		Extra:          extraOf(m),
	}, f.first()
}

// packAck writes an empty refusal as none.
func packAck(r *roster.Ack) (*storev1.AckRecord, error) {
	var f fault
	f.instance("instance_id", string(r.Instance))
	f.natural("revision", int64(r.Revision))
	m := &storev1.AckRecord{
		InstanceId:      string(r.Instance),
		Epoch:           string(r.Epoch),
		Revision:        int64(r.Revision),
		HeldCount:       r.Held,
		UnrunnableCount: r.Unrunnable,
		Persisted:       r.Persisted,
		ReceiveTime:     f.stamp("receive_time", r.ReceiveTime),
	}
	if refusal := r.Refusal; refusal != nil {
		f.producer("refusal_producer_id", string(refusal.ProducerID))
		f.natural("refusal_revision", int64(refusal.Revision))
		m.RefusalReason = refusal.Reason
		m.RefusalMessage = refusal.Message
		m.RefusalProducerId = string(refusal.ProducerID)
		m.RefusalRevision = int64(refusal.Revision)
	}
	return m, f.first()
}

func unpackAck(id assignment.CollectorID, m *storev1.AckRecord) (*roster.Ack, error) {
	var f fault
	f.natural("revision", m.GetRevision())
	f.natural("refusal_revision", m.GetRefusalRevision())
	r := &roster.Ack{
		Collector:   id,
		Instance:    f.instance("instance_id", m.GetInstanceId()),
		Epoch:       assignment.Epoch(m.GetEpoch()),
		Revision:    assignment.Revision(m.GetRevision()),
		Held:        m.GetHeldCount(),
		Unrunnable:  m.GetUnrunnableCount(),
		Persisted:   m.GetPersisted(),
		ReceiveTime: f.time("receive_time", m.GetReceiveTime()),
		Extra:       extraOf(m),
	}
	refusal := assignment.Refusal{
		Reason:     m.GetRefusalReason(),
		Message:    m.GetRefusalMessage(),
		ProducerID: f.producer("refusal_producer_id", m.GetRefusalProducerId()),
		Revision:   assignment.Revision(m.GetRefusalRevision()),
	}
	if refusal != (assignment.Refusal{}) {
		r.Refusal = &refusal
	}
	return r, f.first()
}

func packRemoved(r *roster.Removed) (*storev1.RemovedRecord, error) {
	var f fault
	f.collector(string(r.Collector))
	m := &storev1.RemovedRecord{
		Cause:       int32(r.Cause),
		InstanceIds: texts(r.Instances.All()),
		CollectorId: string(r.Collector),
		RemoveTime:  f.stamp("remove_time", r.RemoveTime),
		HandoffFrom: string(r.HandoffFrom),
	}
	f.collector(string(r.HandoffFrom))
	f.instances(m.GetInstanceIds())
	return m, f.first()
}

func unpackRemoved(id assignment.ProducerID, m *storev1.RemovedRecord) (*roster.Removed, error) {
	var f fault
	return &roster.Removed{
		ID:          id,
		Cause:       assignment.Cause(m.GetCause()),
		Instances:   f.instances(m.GetInstanceIds()),
		Collector:   f.collector(m.GetCollectorId()),
		RemoveTime:  f.time("remove_time", m.GetRemoveTime()),
		HandoffFrom: f.collector(m.GetHandoffFrom()),
		Extra:       extraOf(m),
	}, f.first()
}

func packSuspect(r *roster.Suspect) (*storev1.SuspectRecord, error) {
	var f fault
	f.collector(string(r.Collector))
	return &storev1.SuspectRecord{
		SuspectTime: f.stamp("suspect_time", r.SuspectTime),
		CollectorId: string(r.Collector),
		RenewTime:   f.stamp("renew_time", r.RenewTime),
		Reason:      r.Reason,
	}, f.first()
}

func unpackSuspect(id assignment.ProducerID, m *storev1.SuspectRecord) (*roster.Suspect, error) {
	var f fault
	return &roster.Suspect{
		ID:          id,
		SuspectTime: f.time("suspect_time", m.GetSuspectTime()),
		Collector:   f.collector(m.GetCollectorId()),
		RenewTime:   f.time("renew_time", m.GetRenewTime()),
		Reason:      m.GetReason(),
		Extra:       extraOf(m),
	}, f.first()
}

func packLeader(r *roster.Leader) (*storev1.LeaderRecord, error) {
	var f fault
	f.filled("registry_instance_id", len(r.Registry))
	f.instance("registry_instance_id", string(r.Registry))
	return &storev1.LeaderRecord{
		RegistryInstanceId: string(r.Registry),
		ElectTime:          f.stamp("elect_time", r.ElectTime),
	}, f.first()
}

func unpackLeader(m *storev1.LeaderRecord) (*roster.Leader, error) {
	var f fault
	f.filled("registry_instance_id", len(m.GetRegistryInstanceId()))
	return &roster.Leader{
		Registry:  f.instance("registry_instance_id", m.GetRegistryInstanceId()),
		ElectTime: f.time("elect_time", m.GetElectTime()),
		Extra:     extraOf(m),
	}, f.first()
}

func packExpiry(r *roster.Expiry) (*storev1.ExpiryRecord, error) {
	var f fault
	return &storev1.ExpiryRecord{Mode: int32(r.Mode), Until: f.stamp("until", r.Until)}, f.first()
}

func unpackExpiry(m *storev1.ExpiryRecord) (*roster.Expiry, error) {
	var f fault
	return &roster.Expiry{
		Mode:  roster.ExpiryMode(m.GetMode()),
		Until: f.time("until", m.GetUntil()),
		Extra: extraOf(m),
	}, f.first()
}

func texts(ids []assignment.InstanceID) []string {
	if len(ids) == 0 {
		return nil
	}
	s := make([]string, len(ids))
	for i, id := range ids {
		s[i] = string(id)
	}
	return s
}
