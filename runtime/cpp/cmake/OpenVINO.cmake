# Backend openvino: compiled with OpenVINO's C headers; the library is loaded when it is first needed.
#
# OpenVINO's CMake package is found where OpenVINO_DIR says, where CMake looks, and in the package openvino of TCMOA_PYTHON.
if(NOT TCMOA_OPENVINO)
  target_compile_definitions(tcmoa_objects PRIVATE TCMOA_NO_OPENVINO)
  message(STATUS "Backend openvino: not built (TCMOA_OPENVINO=OFF)")
  return()
endif()

find_package(OpenVINO CONFIG QUIET COMPONENTS Runtime)
if(NOT OpenVINO_FOUND)
  execute_process(
    COMMAND ${TCMOA_PYTHON} -c
      "import importlib.util as u, os; print(os.path.join(u.find_spec('openvino').submodule_search_locations[0], 'cmake'))"
    OUTPUT_VARIABLE _folder OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE _status)
  if(_status EQUAL 0)
    find_package(OpenVINO CONFIG QUIET COMPONENTS Runtime PATHS "${_folder}" NO_DEFAULT_PATH)
  endif()
endif()
if(NOT OpenVINO_FOUND)
  message(FATAL_ERROR
    "OpenVINO: its CMake package was not found, neither by CMake nor in the package openvino of ${TCMOA_PYTHON}. Run "
    "`pip install openvino` and set TCMOA_PYTHON to that Python, or set OpenVINO_DIR to the folder of "
    "OpenVINOConfig.cmake, or build without this backend (-DTCMOA_OPENVINO=OFF).")
endif()

get_target_property(_include openvino::runtime::c INTERFACE_INCLUDE_DIRECTORIES)
foreach(_key LOCATION SONAME)
  get_target_property(_${_key} openvino::runtime::c IMPORTED_${_key}_RELEASE)
endforeach()
target_sources(tcmoa_objects PRIVATE src/openvino.cpp src/openvino_library.cpp src/openvino_slot.cpp)
target_include_directories(tcmoa_objects SYSTEM PRIVATE ${_include})
set_source_files_properties(src/openvino_library.cpp PROPERTIES COMPILE_DEFINITIONS
  "TCMOA_OPENVINO_LIBRARY_HINT=\"${_LOCATION}\";TCMOA_OPENVINO_SONAME=\"${_SONAME}\"")
message(STATUS "Backend openvino: ${OpenVINO_VERSION}")
