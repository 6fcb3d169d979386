// Package wire is what the echo server and its client have in common: the service of gRPC that routes of the suite name.
package wire

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Method is the method that is called. Its messages have a text as their first field, as wrapped strings have.
const Method = "/proto.EchoTestService/Echo"

// Service describes the service; answer makes the text of an answer.
func Service(answer func(context.Context) string) *grpc.ServiceDesc {
	handler := func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		if err := decode(new(wrapperspb.StringValue)); err != nil {
			return nil, err
		}
		return wrapperspb.String(answer(ctx)), nil
	}
	return &grpc.ServiceDesc{
		ServiceName: "proto.EchoTestService",
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Echo", Handler: handler}},
	}
}
