package api

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

// errorDomain is the domain of every ErrorInfo.
const errorDomain = "rollcall"

// retryDelay is what a caller is told to wait before it tries again.
const retryDelay = time.Second

// statusOf is the one map from errors to statuses. An error that it does not
// know is INTERNAL; its text stays here.
func statusOf(err error) *status.Status {
	var violations wire.Violations
	var refused *roster.Error
	var full *exhausted
	switch {
	case errors.As(err, &violations):
		bad := &errdetails.BadRequest{}
		for _, v := range violations {
			bad.FieldViolations = append(bad.FieldViolations,
				&errdetails.BadRequest_FieldViolation{Field: v.Field, Description: v.Description})
		}
		return detailed(codes.InvalidArgument, err.Error(), bad)
	case errors.As(err, &refused):
		return refusal(refused)
	case errors.Is(err, registrar.ErrFull):
		return detailed(codes.ResourceExhausted, "the registry's store is full; nothing was written",
			&errdetails.ErrorInfo{Reason: "STORE_FULL", Domain: errorDomain})
	case errors.Is(err, errSlowReader):
		return detailed(codes.ResourceExhausted, err.Error(),
			&errdetails.ErrorInfo{Reason: "SLOW_READER", Domain: errorDomain})
	case errors.As(err, &full):
		return detailed(codes.ResourceExhausted, full.Error(),
			&errdetails.ErrorInfo{Reason: full.reason, Domain: errorDomain},
			&errdetails.RetryInfo{RetryDelay: durationpb.New(full.retry)})
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err)
	}
	if s, ok := status.FromError(err); ok {
		return s
	}
	return status.New(codes.Internal, "internal error")
}

// quotaDelay is what one is told to wait for whom as many producers count as may:
// until some are gone.
const quotaDelay = time.Minute

// refusal is the status of a command that the rules refuse.
func refusal(e *roster.Error) *status.Status {
	info, delay := &errdetails.ErrorInfo{Reason: e.Reason, Domain: errorDomain}, retryDelay
	if e.Limit > 0 {
		info.Metadata, delay = map[string]string{"limit": strconv.Itoa(e.Limit)}, quotaDelay
	}
	details := []protoadapt.MessageV1{info}
	if e.Class == roster.Unavailable || e.Class == roster.Exhausted {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(delay)})
	}
	return detailed(classCode(e.Class), e.Message, details...)
}

func classCode(c roster.Class) codes.Code {
	switch c {
	case roster.NotFound:
		return codes.NotFound
	case roster.Aborted:
		return codes.Aborted
	case roster.FailedPrecondition:
		return codes.FailedPrecondition
	case roster.Unavailable:
		return codes.Unavailable
	case roster.Exhausted:
		return codes.ResourceExhausted
	default:
		return codes.Internal
	}
}

func detailed(code codes.Code, message string, details ...protoadapt.MessageV1) *status.Status {
	s := status.New(code, message)
	if with, err := s.WithDetails(details...); err == nil {
		return with
	}
	return s
}

// UnaryErrors is the interceptor that turns the handlers' errors into statuses.
func UnaryErrors(logger *slog.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		resp, err := handler(ctx, req)
		return resp, mapped(ctx, logger, info.FullMethod, err)
	}
}

// StreamErrors is UnaryErrors for streams.
func StreamErrors(logger *slog.Logger) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		return mapped(stream.Context(), logger, info.FullMethod, handler(srv, stream))
	}
}

func mapped(ctx context.Context, logger *slog.Logger, method string, err error) error {
	if err == nil {
		return nil
	}
	s := statusOf(err)
	if s.Code() == codes.Internal {
		logger.ErrorContext(ctx, "a call failed for a reason of our own", "method", method, "error", err)
	}
	return s.Err()
}
