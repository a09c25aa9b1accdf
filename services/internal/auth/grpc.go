package auth

import (
	"context"
	"strings"
	"sync"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2"
	"github.com/rollcall-metrics/rollcall/services/internal/access"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpccredentials "google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// A visitor is who makes one call.
type visitor struct {
	method access.Method
	rules  *access.Rules // that made who
	who    access.Identity
}

// Unary is the interceptor of unary calls.
func (p *Porter) Unary() grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		v, err := p.receive(ctx, info.FullMethod)
		if err != nil {
			return nil, err
		}
		role, err := p.let(ctx, v, p.callOf(v, req))
		if err != nil {
			return nil, err
		}
		resp, err := handler(with(ctx, v.who), req)
		if err == nil {
			p.audit(ctx, v, role, req, resp)
		} else if unsettled(v.method, err) {
			p.auditUnsettled(ctx, v, role, req, err)
		}
		return resp, err
	}
}

// Stream is the interceptor of streams. What the call is about is in its message,
// so that is looked at when it comes.
func (p *Porter) Stream() grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		if p.config.Open {
			return handler(srv, stream)
		}
		ctx := stream.Context()
		v, err := p.receive(ctx, info.FullMethod)
		if err != nil {
			return err
		}
		if v.method.Open {
			return handler(srv, stream)
		}
		if !v.method.Admits(v.who) {
			return p.deny(ctx, v, access.RoleMissing, nil)
		}
		wrapped := middleware.WrapServerStream(stream)
		wrapped.WrappedContext = with(ctx, v.who)
		return handler(srv, &watched{WrappedServerStream: wrapped, porter: p, visitor: v})
	}
}

// watched is a stream of which every request is looked at. While it stands, its
// caller is judged anew when the rules change.
type watched struct {
	*middleware.WrappedServerStream
	porter *Porter

	mu      sync.Mutex // guards what follows
	visitor visitor
	call    access.Call // the last one
}

// RecvMsg receives a request that its caller may make.
func (w *watched) RecvMsg(m any) error {
	if err := w.WrappedServerStream.RecvMsg(m); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.call = w.porter.callOf(w.visitor, m)
	_, err := w.porter.let(w.Context(), w.visitor, w.call)
	return err
}

// SendMsg sends to one who may still have it.
func (w *watched) SendMsg(m any) error {
	if err := w.recheck(); err != nil {
		return err
	}
	return w.WrappedServerStream.SendMsg(m)
}

func (w *watched) recheck() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.porter.rules() == w.visitor.rules {
		return nil
	}
	v, err := w.porter.receive(w.Context(), w.visitor.method.Name)
	if err != nil {
		return err
	}
	w.visitor, w.call.Who = v, v.who
	_, err = w.porter.let(w.Context(), v, w.call)
	return err
}

// receive finds out who makes a call of a method.
func (p *Porter) receive(ctx context.Context, name string) (visitor, error) {
	method, known := p.methods[name]
	v := visitor{method: method}
	switch {
	case p.config.Open || method.Open:
		return v, nil
	case !known:
		v.method.Name = name
		return v, p.deny(ctx, v, access.NoRule, nil)
	}
	given := credentialsOf(ctx)
	given.header = metadata.ValueFromIncomingContext(ctx, "authorization")
	v.rules = p.rules()
	who, reason, err := identify(v.rules, given)
	if reason != "" {
		p.refused(ctx, refusal{protocol: "grpc", what: name, peer: addressOf(ctx), code: unauthenticated, reason: reason, err: err})
		return v, statusOf(reason)
	}
	v.who = who
	return v, nil
}

// credentialsOf are those of a call's connection.
func credentialsOf(ctx context.Context) credentials {
	if at, ok := peer.FromContext(ctx); ok {
		if info, ok := at.AuthInfo.(grpccredentials.TLSInfo); ok {
			return credentials{leaf: leafOf(&info.State)}
		}
	}
	return credentials{}
}

// callOf is what there is to decide about a request. A stream keeps it for as long
// as it stands: it has no part of the request that could be large.
func (p *Porter) callOf(v visitor, req any) access.Call {
	call := access.Call{Who: v.who, Server: p.config.Self}
	m, ok := req.(proto.Message)
	if !ok || p.config.Open || v.method.Open {
		return call
	}
	call.Subjects = textsAt(m, v.method.Subject.Path)
	for _, field := range v.method.Fields() {
		if set(m, field) {
			call.Set = append(call.Set, field)
		}
	}
	return call
}

// let decides about a call, and says in which role it is made.
func (p *Porter) let(ctx context.Context, v visitor, call access.Call) (access.Role, error) {
	if p.config.Open || v.method.Open {
		return "", nil
	}
	role, reason := v.method.Decide(call)
	if reason != "" {
		return "", p.deny(ctx, v, reason, call.Subjects)
	}
	return role, nil
}

// deny refuses a call of somebody who is known.
func (p *Porter) deny(ctx context.Context, v visitor, reason access.Reason, subjects []string) error {
	p.refused(ctx, refusal{
		protocol: "grpc", what: v.method.Name, peer: addressOf(ctx), code: permissionDenied,
		reason: reason, who: v.who, subjects: subjects,
	})
	return statusOf(reason)
}

// The codes, as the metric has them.
const (
	unauthenticated  = "unauthenticated"
	permissionDenied = "permission_denied"
	exhausted        = "resource_exhausted"
)

// errorDomain is the domain of every ErrorInfo.
const errorDomain = "rollcall"

// statusOf is what a caller is told, and all of it.
func statusOf(reason access.Reason) error {
	code := codes.PermissionDenied
	if reason == access.NoCredentials || reason == access.UnknownCredentials {
		code = codes.Unauthenticated
	}
	s := status.New(code, told(reason))
	if detailed, err := s.WithDetails(&errdetails.ErrorInfo{Reason: string(reason), Domain: errorDomain}); err == nil {
		s = detailed
	}
	return s.Err()
}

// told is a reason in words.
func told(reason access.Reason) string {
	switch reason {
	case access.NoCredentials:
		return "a client certificate or a bearer token is wanted"
	case access.UnknownCredentials:
		return "the client certificate or bearer token is for nobody who is known here"
	case access.RoleMissing:
		return "this is not for the role of the caller"
	case access.NotYours:
		return "the caller may do this only for itself"
	default:
		return "nobody may do this"
	}
}

// addressOf is where a call comes from.
func addressOf(ctx context.Context) string {
	at, ok := peer.FromContext(ctx)
	if !ok || at.Addr == nil {
		return ""
	}
	return strings.ToValidUTF8(at.Addr.String(), "?")
}
