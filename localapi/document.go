package localapi

import (
	"encoding"
	"encoding/json"
	"reflect"
	"time"
)

// Document is a copy of v as it is printed for programs: times in UTC, and lists and maps that are empty instead of
// null. v itself is left alone.
func Document[T any](v T) T {
	copied, ok := documented(reflect.ValueOf(&v).Elem()).Interface().(T)
	if !ok {
		return v // a nil interface value
	}
	return copied
}

func documented(v reflect.Value) reflect.Value {
	if t, ok := reflect.TypeAssert[time.Time](v); ok {
		return reflect.ValueOf(t.UTC())
	}
	switch v.Kind() {
	case reflect.Struct:
		if encodesItself(v) {
			return v
		}
		out := reflect.New(v.Type()).Elem()
		out.Set(v)
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				out.Field(i).Set(documented(v.Field(i)))
			}
		}
		return out
	case reflect.Pointer:
		if v.IsNil() {
			return v
		}
		out := reflect.New(v.Type().Elem())
		out.Elem().Set(documented(v.Elem()))
		return out
	case reflect.Slice:
		out := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		for i := range v.Len() {
			out.Index(i).Set(documented(v.Index(i)))
		}
		return out
	case reflect.Map:
		if v.IsNil() {
			return reflect.MakeMap(v.Type())
		}
	}
	return v
}

func encodesItself(v reflect.Value) bool {
	_, isJSON := reflect.TypeAssert[json.Marshaler](v)
	_, isText := reflect.TypeAssert[encoding.TextMarshaler](v)
	return isJSON || isText
}
