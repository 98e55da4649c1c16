// CMake wants a source file even where a target consists of other targets objects only.
