# billfish_layer(NAME DEPS layers... LIBS targets...) compiles src/NAME/*.cc into an object library that may use the named layers.
# billfish_library() joins all of them into the installed library; billfish_test_executable() links a test against a layer and
# what lies below it, so that a broken upper layer never hides a lower one.

add_library(billfish_flags INTERFACE)
target_compile_features(billfish_flags INTERFACE cxx_std_20)
target_compile_options(billfish_flags INTERFACE -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wnon-virtual-dtor -Wno-missing-field-initializers
                       $<$<BOOL:${BILLFISH_WERROR}>:-Werror>)
# GCC 12 reports overlaps of 2^62 bytes inside std::string (GCC bug 105651).
target_compile_options(billfish_flags INTERFACE $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
target_include_directories(billfish_flags INTERFACE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)

# One instruction set per folder of src/cpu/kernels; everything else is baseline x86-64.
set(BILLFISH_ISA_FLAGS_avx2 -mavx2 -mfma -mf16c)
set(BILLFISH_ISA_FLAGS_avx512 ${BILLFISH_ISA_FLAGS_avx2} -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512cd)
set(BILLFISH_ISA_FLAGS_avx512bf16 ${BILLFISH_ISA_FLAGS_avx512} -mavx512bf16 -mavx512vnni -mavx512vbmi -mprfchw)

function(billfish_layer name)
  cmake_parse_arguments(ARG "" "" "DEPS;LIBS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${name}/*.cc)
  list(FILTER sources EXCLUDE REGEX "/src/cpu/kernels/")
  if(NOT sources)
    set(sources ${PROJECT_SOURCE_DIR}/cmake/empty.cc)
  endif()
  add_library(billfish_${name} OBJECT ${sources})
  target_link_libraries(billfish_${name} PRIVATE billfish_flags ${ARG_LIBS})
  set(objects billfish_${name})
  if(name STREQUAL "cpu")
    foreach(isa scalar avx2 avx512 avx512bf16)
      file(GLOB isa_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/cpu/kernels/${isa}/*.cc)
      if(isa_sources AND (isa STREQUAL "scalar" OR CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64"))
        add_library(billfish_cpu_${isa} OBJECT ${isa_sources})
        # GCC 12 warns of its own _mm512_undefined_* headers.
        target_compile_options(billfish_cpu_${isa} PRIVATE ${BILLFISH_ISA_FLAGS_${isa}}
                               $<$<CXX_COMPILER_ID:GNU>:-Wno-uninitialized -Wno-maybe-uninitialized>)
        # GCC knows no model of the CPUs that have this set and would move what kernels spread among their dots.
        if(isa STREQUAL "avx512bf16")
          target_compile_options(billfish_cpu_${isa} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-fno-schedule-insns2>)
        endif()
        # A sanitizer takes minutes over the unrolled register tiles. The scalar kernels, which share their driver and packing, keep it.
        if(CMAKE_CXX_FLAGS MATCHES "-fsanitize=" AND NOT isa STREQUAL "scalar")
          target_compile_options(billfish_cpu_${isa} PRIVATE -fno-sanitize=all -O2)
        endif()
        target_link_libraries(billfish_cpu_${isa} PRIVATE billfish_flags ${ARG_LIBS})
        list(APPEND objects billfish_cpu_${isa})
      endif()
    endforeach()
  endif()
  set(closure ${objects})
  set(libs ${ARG_LIBS})
  foreach(dep IN LISTS ARG_DEPS)
    get_property(dep_closure GLOBAL PROPERTY BILLFISH_CLOSURE_${dep})
    get_property(dep_libs GLOBAL PROPERTY BILLFISH_LIBS_${dep})
    list(APPEND closure ${dep_closure})
    list(APPEND libs ${dep_libs})
    target_link_libraries(billfish_${name} PRIVATE ${dep_libs})
  endforeach()
  list(REMOVE_DUPLICATES closure)
  list(REMOVE_DUPLICATES libs)
  set_property(GLOBAL PROPERTY BILLFISH_CLOSURE_${name} ${closure})
  set_property(GLOBAL PROPERTY BILLFISH_LIBS_${name} ${libs})
  set_property(GLOBAL APPEND PROPERTY BILLFISH_LAYERS ${name})
endfunction()

# Links `target` with the objects of the named layers and of every layer below them.
function(billfish_use_layers target)
  set(objects)
  foreach(layer IN LISTS ARGN)
    get_property(closure GLOBAL PROPERTY BILLFISH_CLOSURE_${layer})
    get_property(libs GLOBAL PROPERTY BILLFISH_LIBS_${layer})
    list(APPEND objects ${closure})
    target_link_libraries(${target} PRIVATE ${libs})
  endforeach()
  list(REMOVE_DUPLICATES objects)
  foreach(object IN LISTS objects)
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:${object}>)
  endforeach()
endfunction()

function(billfish_library)
  add_library(billfish ${PROJECT_SOURCE_DIR}/cmake/empty.cc)
  add_library(billfish::billfish ALIAS billfish)
  get_property(layers GLOBAL PROPERTY BILLFISH_LAYERS)
  billfish_use_layers(billfish ${layers})
  target_include_directories(billfish PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_compile_features(billfish PUBLIC cxx_std_20)
  set_target_properties(billfish PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR})
endfunction()

# The program lies at <build>/billfish. bench/ is the library behind its `bench` verb.
function(billfish_program)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/cli/*.cc ${PROJECT_SOURCE_DIR}/bench/*.cc)
  list(FILTER sources EXCLUDE REGEX "/bench/cpu_kernels.cc$")
  add_executable(billfish_cli ${sources})
  set_target_properties(billfish_cli PROPERTIES OUTPUT_NAME billfish RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
  target_include_directories(billfish_cli PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(billfish_cli PRIVATE billfish billfish_flags CLI11::CLI11 fmt::fmt nlohmann_json::nlohmann_json)
endfunction()

# The commit, looked up at every build, reaches src/core/version.cc alone.
function(billfish_commit_header)
  set(header ${PROJECT_BINARY_DIR}/generated/billfish_commit.h)
  add_custom_target(billfish_commit BYPRODUCTS ${header}
                    COMMAND ${CMAKE_COMMAND} -DSOURCE_DIR=${PROJECT_SOURCE_DIR} -DOUTPUT=${header} -P ${PROJECT_SOURCE_DIR}/cmake/commit.cmake)
  add_dependencies(billfish_core billfish_commit)
  set_property(SOURCE ${PROJECT_SOURCE_DIR}/src/core/version.cc PROPERTY INCLUDE_DIRECTORIES ${PROJECT_BINARY_DIR}/generated)
  set_property(SOURCE ${PROJECT_SOURCE_DIR}/src/core/version.cc PROPERTY COMPILE_DEFINITIONS BILLFISH_VERSION="${PROJECT_VERSION}")
endfunction()

# Device code travels inside the library as text: it is compiled on the machine that has the GPU.
function(billfish_embed_kernels)
  set(output ${PROJECT_BINARY_DIR}/generated/embedded_sources.cc)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/cuda/kernels/*.cu ${PROJECT_SOURCE_DIR}/src/cuda/kernels/*.cuh
       ${PROJECT_SOURCE_DIR}/src/cuda/*.h)
  set(script ${PROJECT_SOURCE_DIR}/cmake/embed_kernels.cmake)
  add_custom_command(OUTPUT ${output} DEPENDS ${sources} ${script} VERBATIM
                     COMMAND ${CMAKE_COMMAND} -DSOURCE_DIR=${PROJECT_SOURCE_DIR} -DOUTPUT=${output} -P ${script}
                     COMMENT "Embedding the device code")
  target_sources(billfish_cuda PRIVATE ${output})
endfunction()
